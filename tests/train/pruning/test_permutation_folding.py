"""Orders folded into real classifiers, which must go on giving the same logits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadModel, VerificationFailed
from spd_deploy.domain.models.bert import BERT_LAYER
from spd_deploy.domain.models.known import ARCHITECTURES
from spd_deploy.domain.patterns import NM, Block, Pattern
from spd_train.model import adapt, encoder_sizes, linear_weights
from spd_train.pruning.importance import magnitudes
from spd_train.pruning.permutation.axes import HIDDEN, Axis, AxisOrder, axes_of, spread
from spd_train.pruning.permutation.budget import SearchBudget
from spd_train.pruning.permutation.permute import fold, fold_verified, permute_model
from spd_train.pruning.permutation.residual import probe_logits, residual_places

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "initializer_range": 0.2,  # large enough for a wrong order to show in the logits
}
ENCODER = Encoder(
    prefix="bert.encoder.layer",
    naming=BERT_LAYER,
    layers=2,
    hidden=32,
    heads=4,
    intermediate=64,
    vocabulary=50,
    positions=40,
)
BUDGET = SearchBudget(stripe_sweeps=20, patience=5, group_rounds=20)
AXES = {axis.name.removeprefix("layer 1 "): axis for axis in axes_of(ENCODER)}


def bert() -> PreTrainedModel:
    return _shaken(BertForSequenceClassification(BertConfig(**SIZES)))


def roberta() -> PreTrainedModel:
    return _shaken(RobertaForSequenceClassification(RobertaConfig(**SIZES)))


def electra() -> PreTrainedModel:
    """Embeddings narrower than the hidden state, and a projection between."""
    return _shaken(ElectraForSequenceClassification(ElectraConfig(**SIZES, embedding_size=16)))


def mpnet() -> PreTrainedModel:
    """Heads have their columns in a table that both layers share."""
    return _shaken(MPNetForSequenceClassification(MPNetConfig(**SIZES)))


def deberta() -> PreTrainedModel:
    """The query and key matrices also project a table of positions, which both layers share."""
    fields: dict[str, Any] = {
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
    }
    fields |= {"share_att_key": True, "position_biased_input": False}
    config = DebertaV2Config(**SIZES, **fields, pos_att_type=["p2c", "c2p"])
    model = DebertaV2ForSequenceClassification(config)
    adapt(model)
    return _shaken(model)


def encoder_of(model: PreTrainedModel) -> Encoder:
    """The encoder of one of the models above."""
    base = model.base_model_prefix
    naming = ARCHITECTURES[base].naming
    if base == "deberta":
        return encoder_sizes(model)
    return replace(ENCODER, prefix=f"{base}.encoder.layer", naming=naming)


def _shaken(model: PreTrainedModel) -> PreTrainedModel:
    """No bias is zero and no norm is one, so that none may be forgotten."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.2)
    model.train(mode=False)
    return model


def shuffled(axis: Axis) -> AxisOrder:
    """Every segment's units in a random order."""
    draw = torch.Generator().manual_seed(1)
    units, per = axis.size // axis.unit, axis.segment // axis.unit
    inner = torch.rand(units // per, per, generator=draw).argsort(1)
    order_U = (inner + torch.arange(0, units, per)[:, None]).flatten()
    return AxisOrder(axis=axis, order_X=spread(order_U, axis.unit))


def targets(pattern: Pattern) -> dict[str, Pattern]:
    return {m.name: pattern for m in ENCODER.matrices()}


@pytest.mark.parametrize("name", AXES)
def test_a_folded_order_leaves_the_function(name: str) -> None:
    """After any order of one axis the logits are the same, while the weights are not."""
    model, move = bert(), shuffled(AXES[name])
    before_BC = probe_logits(model)
    weights = {n: w.clone() for n, w in linear_weights(model, ENCODER).items()}

    fold(model, [move], residual_places(model, ENCODER))

    assert torch.allclose(probe_logits(model), before_BC, atol=1e-5)
    after = linear_weights(model, ENCODER)
    assert not any(torch.equal(after[n], weights[n]) for n in move.axis.matrices)


@pytest.mark.parametrize("make", [bert, mpnet, deberta], ids=lambda make: make.__name__)
def test_all_orders_together_leave_the_function(make: Callable[[], PreTrainedModel]) -> None:
    """Every axis moved, one after another: the logits are the same."""
    model = make()
    encoder = encoder_of(model)
    before_BC = probe_logits(model)

    fold(model, [shuffled(axis) for axis in axes_of(encoder)], residual_places(model, encoder))

    assert torch.allclose(probe_logits(model), before_BC, atol=1e-5)


@pytest.mark.parametrize(
    "pattern",
    [NM(n=2, m=4), Block(rows=16, columns=1), Block(rows=4, columns=2), Block(rows=8, columns=1)],
    ids=str,
)
def test_a_permuted_model_keeps_more_and_says_so(pattern: Pattern) -> None:
    """Masks made anew from the folded weights keep the reported share; logits are the same."""
    model = bert()
    before_BC = probe_logits(model)
    scores = magnitudes(linear_weights(model, ENCODER))

    found = permute_model(model, ENCODER, targets=targets(pattern), scores=scores, budget=BUDGET)

    folded = magnitudes(linear_weights(model, ENCODER))
    arranged = found.arranged(scores)
    kept = sum(float(s[pattern.mask(s, pattern.sparsity)].sum()) for s in folded.values())
    assert all(torch.equal(folded[name], arranged[name]) for name in folded)
    assert kept / sum(float(s.sum()) for s in folded.values()) == pytest.approx(found.total.after)
    assert found.total.after > found.total.before
    assert torch.allclose(probe_logits(model), before_BC, atol=1e-5)


@pytest.mark.parametrize(
    "make", [bert, roberta, electra, mpnet, deberta], ids=lambda make: make.__name__
)
def test_the_residual_stream_is_followed_in_every_architecture(
    make: Callable[[], PreTrainedModel],
) -> None:
    """Embeddings, norms and head of each kind go along with the hidden state's order."""
    model = make()
    encoder = encoder_of(model)
    hidden = next(axis for axis in axes_of(encoder) if axis.name == HIDDEN)
    before_BC = probe_logits(model)

    fold(model, [shuffled(hidden)], residual_places(model, encoder))

    assert torch.allclose(probe_logits(model), before_BC, atol=1e-5)


class Scale(nn.Module):
    """A module with a weight of its own that no encoder is known to have."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(32))

    def forward(self, hidden_BSH: Tensor) -> Tensor:
        return hidden_BSH * self.weight


def test_a_stream_that_cannot_be_followed_is_left_alone() -> None:
    """With a strange module in the way the hidden order stays, with the reason; others move."""
    model = bert()
    model.get_submodule("bert.embeddings").dropout = Scale()
    scores = magnitudes(linear_weights(model, ENCODER))

    found = permute_model(
        model, ENCODER, targets=targets(NM(n=2, m=4)), scores=scores, budget=BUDGET
    )

    assert "embeddings.dropout is a Scale" in found.skipped[HIDDEN]
    assert found.moves
    assert HIDDEN not in {move.axis.name for move in found.moves}


def test_a_module_between_the_matrices_is_not_taken_for_a_norm() -> None:
    """A linear layer within the encoder, as adapters add, is no place to fold an order into."""
    model = bert()
    model.get_submodule(f"{ENCODER.prefix}.0.output").dropout = nn.Linear(32, 32)

    with pytest.raises(BadModel, match="not a norm"):
        residual_places(model, ENCODER)


def test_a_fold_that_changes_the_function_is_taken_back() -> None:
    """With a place forgotten the logits differ: an error, and the weights are as before."""
    model = bert()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    places = dict(residual_places(model, ENCODER))
    del places["bert.embeddings.LayerNorm.bias"]

    with pytest.raises(VerificationFailed):
        fold_verified(model, [shuffled(axis) for axis in axes_of(ENCODER)], places)

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_probe_leaves_the_mode_of_the_model() -> None:
    """A model in training is in training afterwards, and dropout does not touch the logits."""
    model = bert()
    model.train(mode=True)

    assert torch.equal(probe_logits(model), probe_logits(model))
    assert model.training
