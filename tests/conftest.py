"""Fixtures that several folders of tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.patterns import Block
from spd_deploy.sessions.tensorrt.compatibility import engine_fault
from tests.tiny import tiny_checkpoint

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# How long an example takes is no fact about it.
settings.register_profile("spd", deadline=None)
settings.load_profile("spd")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU or TensorRT where there is none, with the reason."""
    import torch

    lacking = {
        "gpu": None if torch.cuda.is_available() else "PyTorch finds no CUDA device",
        "trt": engine_fault(),
    }
    for item in items:
        for mark, reason in lacking.items():
            if reason is not None and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session", autouse=True)
def _blank_curves() -> Iterator[None]:
    """A run composes the figure of its curves, and saves an empty picture in its place.

    To draw the figures takes longer than to train a tiny model.
    """
    from matplotlib.figure import Figure

    import spd_train.run
    from spd_train.plots.curves import CURVES_FILE, curves_figure
    from spd_train.training.metrics_log import METRICS_FILE, read_metrics_log

    def draw(folder: Path, **words: str) -> Path:
        curves_figure(read_metrics_log(folder / METRICS_FILE), **words)
        Figure(figsize=(1, 1)).savefig(folder / CURVES_FILE)
        return folder / CURVES_FILE

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spd_train.run, "draw_curves", draw)
        yield


@pytest.fixture(scope="session")
def dense_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A dense checkpoint for SST-2."""
    return tiny_checkpoint(tmp_path_factory.mktemp("dense") / "model")


@pytest.fixture(scope="session")
def block_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A block-sparse checkpoint for MRPC, a task of pairs."""
    return tiny_checkpoint(
        tmp_path_factory.mktemp("block") / "model",
        pattern=Block(rows=16, columns=1, sparsity=0.75),
        task="mrpc",
        seed=1,
    )


@pytest.fixture(scope="session")
def glue() -> Path:
    """The folder of real GLUE files."""
    folder = os.environ.get("SPD_TEST_GLUE")
    if not folder:
        pytest.skip("SPD_TEST_GLUE does not name a folder with GLUE's files")
    return Path(folder)
