"""A hub and an artefact that the tests of this folder share."""

from collections.abc import Iterator

import pytest

from exporters.export import ExportRequest, artefact_from_checkpoint
from exporters.formats import ONNX
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from tests.hub.stand_in import Hub, running_hub


@pytest.fixture(scope="session")
def artefact(tmp_path_factory: pytest.TempPathFactory, block_checkpoint: Checkpoint) -> Artefact:
    """The block-sparse checkpoint, exported."""
    request = ExportRequest(export_format=ONNX)
    output = tmp_path_factory.mktemp("exported") / "pairs"
    return artefact_from_checkpoint(block_checkpoint, output, request)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub without a model."""
    with running_hub() as hub:
        yield hub
