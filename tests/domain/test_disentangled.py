"""Rows of relative positions against Transformers, and DeBERTa-v2 models that are not handled."""

from typing import Any

import pytest
import torch
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.layers import refuse_other_kind
from spd_deploy.domain.models.deberta import disentangled_of

V3 = {
    "model_type": "deberta-v2",
    "hidden_size": 768,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "max_relative_positions": -1,
    "max_position_embeddings": 512,
    "position_biased_input": False,
    "pooler_hidden_act": "gelu",
    "pooler_hidden_size": 768,
    "type_vocab_size": 0,
}


@pytest.mark.parametrize(
    ("buckets", "longest"), [(256, 512), (256, 2048), (32, 512), (16, 64), (10, 300), (-1, 40)]
)
def test_rows_are_transformers(buckets: int, longest: int) -> None:
    """At every distance, also at those beyond the longest."""
    config = {**V3, "position_buckets": buckets, "max_relative_positions": longest}
    span = buckets if buckets > 0 else longest
    distances = range(-longest - 90, longest + 91)

    found = list(disentangled_of(config).rows_of(distances))

    theirs = torch.tensor(list(distances))
    if buckets > 0:
        theirs = make_log_bucket_position(theirs, buckets, longest)
    assert found == (theirs.long() + span).clamp(0, 2 * span - 1).tolist()


def test_version_3_is_handled() -> None:
    """Both terms, with a table of 512 rows."""
    refuse_other_kind(V3)

    found = disentangled_of(V3)

    assert found.content_to_position
    assert found.position_to_content
    assert found.span == 256
    assert found.normed


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("relative_attention", False, "relative_attention"),
        ("pos_att_type", None, "pos_att_type"),
        ("pos_att_type", ["p2p"], "pos_att_type"),
        ("share_att_key", False, "share_att_key"),
        ("conv_kernel_size", 3, "conv_kernel_size 3"),
        ("position_biased_input", True, "position_biased_input"),
        ("embedding_size", 128, "embedding_size"),
        ("pooler_hidden_act", "tanh", "pooler_hidden_act"),
        ("pooler_hidden_size", 64, "pooler_hidden_size"),
    ],
)
def test_others_are_refused(field: str, value: Any, named: str) -> None:
    """The field of ``config.json`` is named."""
    with pytest.raises(BadModel, match=named):
        refuse_other_kind({**V3, field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("position_buckets", 3),
        ("position_buckets", 1024),
        ("position_buckets", "256"),
        ("max_relative_positions", 2.5),
        ("pos_att_type", 7),
    ],
)
def test_fields_that_cannot_be_read_are_named(field: str, value: Any) -> None:
    """A wrong kind of value, or buckets that fit no text."""
    with pytest.raises(BadModel, match=field):
        disentangled_of({**V3, field: value})
