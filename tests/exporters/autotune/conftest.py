"""A block-sparse model that the tests of tuning share."""

import pytest

from exporters.classifier_weights import ClassifierWeights, read_weights
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.patterns import Block
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="session")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, ClassifierWeights]:
    """A block-sparse model of three layers, one matrix of which keeps more than its likes."""
    checkpoint = tiny_checkpoint(
        tmp_path_factory.mktemp("tuning") / "c",
        pattern=Block(rows=16, columns=1, sparsity=0.75),
        goals={"bert.encoder.layer.1.attention.self.key": 0.5},
        layers=3,
    )
    return checkpoint, read_weights(checkpoint)
