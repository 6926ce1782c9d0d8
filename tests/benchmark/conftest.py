"""Real artefacts, tiny, made once."""

import pytest

from exporters.export import artefact_from_checkpoint
from spd_deploy.benchmark.arms import Arm
from spd_deploy.benchmark.artefact_arms import arms_of
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.patterns import NM
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def dense_artefact(
    dense_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Artefact:
    """A dense artefact."""
    return artefact_from_checkpoint(dense_checkpoint, tmp_path_factory.mktemp("artefact") / "dense")


@pytest.fixture(scope="session")
def nm_artefact(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """A 2:4 artefact, whose matrices no CPU runs sparse."""
    folder = tmp_path_factory.mktemp("nm")
    checkpoint = tiny_checkpoint(folder / "model", pattern=NM(n=2, m=4))
    return artefact_from_checkpoint(checkpoint, folder / "nm")


@pytest.fixture(scope="session")
def arms(dense_artefact: Artefact, nm_artefact: Artefact) -> tuple[Arm, ...]:
    """Both, named."""
    return arms_of([dense_artefact, nm_artefact])
