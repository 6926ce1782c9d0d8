"""What a session on an engine knows of its sparse kernels: the builder's verdicts, and no more."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from exporters.tensorrt.build import BuildRequest, build_engine
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.open import session_from_artefact
from spd_deploy.sessions.tensorrt.engine_record import EngineRecord
from tests.sessions.tensorrt.conftest import Machine
from tests.sessions.tensorrt.test_build import DENSE, SPARSE, told

Made = Callable[..., Machine]


def built(
    machine: Made, artefact: Artefact, tactic: Callable[[int], str | None], *, dense_s: float = 2e-3
) -> EngineRecord:
    """An engine of which every product in a bucket runs by this kernel; sparse builds take 1 ms."""
    here = machine()

    def layer(config: dict[str, Any], node: str, profile: int) -> dict[str, Any]:
        sparse = "SPARSE_WEIGHTS" in config["flags"]
        kernel = tactic(profile) if sparse else DENSE
        return {**told(config, node, profile), "TacticName": kernel}

    here.log.told = layer
    here.log.seconds = lambda config: 1e-3 if "SPARSE_WEIGHTS" in config["flags"] else dense_s
    return build_engine(artefact, BuildRequest(builds=1))


def batch_of(rows: int, tokens: int) -> Batch:
    ids_BS = np.ones((rows, tokens), np.int64)
    return Batch(ids_BS=ids_BS, mask_BS=ids_BS, types_BS=0 * ids_BS)


def test_they_are_those_of_the_buckets_that_ran(machine: Made, artefact: Artefact) -> None:
    """Before any batch those of all buckets; then of the ones that the last one went through."""
    record = built(machine, artefact, lambda profile: SPARSE if profile == 0 else DENSE)
    assert str(record.buckets[0]) == "1x8"

    with session_from_artefact(artefact) as session:
        found = [session.description.sparse_kernels]
        for rows, tokens in ((1, 3), (4, 3), (5, 8), (1, 8)):
            session.run(batch_of(rows, tokens))
            found.append(session.description.sparse_kernels)

    assert found == [(SPARSE,), (SPARSE,), (), (SPARSE,), (SPARSE,)]  # 5 rows: in 4x8, then in 1x8


@pytest.mark.parametrize(
    ("tactic", "dense_s", "known"),
    [
        (DENSE, 2e-3, ()),
        (None, 2e-3, None),
        (SPARSE, 0.5e-3, ()),
    ],
    ids=["dense kernels", "hidden kernels", "the dense build was faster"],
)
def test_none_and_unknown_are_told_apart(
    tactic: str | None,
    dense_s: float,
    known: tuple[str, ...] | None,
    machine: Made,
    artefact: Artefact,
) -> None:
    """Kernels without a name are no claim; an engine that is a dense build has none for certain."""
    built(machine, artefact, lambda _: tactic, dense_s=dense_s)

    with session_from_artefact(artefact) as session:
        assert session.description.sparse_kernels == known
