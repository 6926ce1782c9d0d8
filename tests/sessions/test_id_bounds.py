"""Ids beyond a model's tables are refused before anything looks them up."""

from pathlib import Path

import numpy as np
import pytest

from exporters.torch.export import torch_artefact_from_checkpoint
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.id_bounds import IdBounds
from spd_deploy.sessions.open import session_from_artefact
from spd_deploy.sessions.torch_network.session import TorchArtefactSession


def batch_of(ids: list[int], types: list[int]) -> Batch:
    ids_BS, types_BS = np.array([ids]), np.array([types])
    return Batch(ids_BS=ids_BS, mask_BS=np.ones_like(ids_BS), types_BS=types_BS)


@pytest.mark.parametrize(
    ("ids", "types", "said"),
    [
        ([0, 9], [0, 1], None),
        ([0, 10], [0, 1], "input_ids of 0 to 9; got 0 to 10"),
        ([-1, 3], [0, 1], "input_ids of 0 to 9; got -1 to 3"),
        ([0, 9], [0, 2], "token_type_ids of 0 to 1; got 0 to 2"),
        ([0, 9], [-1, 0], "token_type_ids of 0 to 1; got -1 to 0"),
    ],
)
def test_the_table_and_what_was_asked_of_it_are_named(
    ids: list[int], types: list[int], said: str | None
) -> None:
    """The first and the last row are there, the ones before and after are not."""
    tables = IdBounds(token_ids=10, token_types=2)
    batch = batch_of(ids, types)

    if said is None:
        tables.refuse_out_of_range(batch)
        return
    with pytest.raises(EngineFailed, match=said):
        tables.refuse_out_of_range(batch)


@pytest.mark.parametrize("types", [0, 1])
def test_a_lone_type_is_not_looked_up(types: int) -> None:
    """Tokenizers number a second text 1 for every model, and such a model reads no types."""
    IdBounds(token_ids=10, token_types=types).refuse_out_of_range(batch_of([1, 2], [0, 1]))


def test_a_torch_artefact_looks_up_no_such_id(
    dense_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither ``run`` nor ``prepare`` reaches the network: on a GPU it would break the context."""
    artefact = torch_artefact_from_checkpoint(dense_checkpoint, tmp_path / "a", precision="fp32")
    vocabulary = dense_checkpoint.encoder.vocabulary

    with session_from_artefact(artefact) as session:
        assert isinstance(session, TorchArtefactSession)
        monkeypatch.setattr(session.network, "logits", None)  # whoever calls it fails otherwise
        for batch in (batch_of([vocabulary], [0]), batch_of([1], [7])):
            with pytest.raises(EngineFailed, match="the model takes"):
                session.run(batch)
            with pytest.raises(EngineFailed, match="the model takes"):
                session.prepare(batch, graph=True)
