"""A small model that the tests of long files share."""

import pytest

from exporters.export import artefact_from_checkpoint
from spd_deploy.api.loading import Model, load
from spd_deploy.domain.artefact import Artefact
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    folder = tmp_path_factory.mktemp("scale")
    return artefact_from_checkpoint(tiny_checkpoint(folder / "c", task="sst2"), folder / "a")


@pytest.fixture(scope="session")
def model(artefact: Artefact) -> Model:
    return load(artefact.folder, threads=1)
