"""Fixtures that several folders of tests share."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from spd_deploy.benchmark import memory
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.patterns import Block
from spd_deploy.sessions.tensorrt.compatibility import engine_fault
from tests.pictures import blank_pictures, real_pictures
from tests.tiny import tiny_checkpoint

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# How long an example takes is no fact about it.
settings.register_profile("spd", deadline=None)
settings.load_profile("spd")
# What collection makes stays to the end: nothing is looked for in it, now or during the tests.
gc.disable()
_SHORT = Path(__file__).parent / "domain"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU or TensorRT where there is none, with the reason.

    Many short files come last, so that two workers end at the same time.
    """
    import torch

    items.sort(key=lambda item: item.path.is_relative_to(_SHORT))
    lacking = {
        "gpu": None if torch.cuda.is_available() else "PyTorch finds no CUDA device",
        "trt": engine_fault(),
    }
    for item in items:
        for mark, reason in lacking.items():
            if reason is not None and item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Ours in place of ``loadfile``; what xdist has for any other way."""
    if config.getoption("dist") != "loadfile":
        return None
    from tests.scheduling import FilesAndRay

    return FilesAndRay(config, log)


def pytest_collection_finish() -> None:
    """Garbage is collected from here on, among what the tests make."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _blank_pictures() -> Iterator[None]:
    """Pictures are blank; tests of what is in them take ``rendered``."""
    with blank_pictures():
        yield


@pytest.fixture(scope="module")
def rendered() -> Iterator[None]:
    """Pictures are drawn, to the end of the module."""
    with real_pictures():
        yield


@pytest.fixture(scope="session", autouse=True)
def status_file() -> Iterator[Path]:
    """Arms are measured as on a system without ``/proc``, where no process weighs them.

    Tests of their memory take ``weighed``. Yields the file that tells a process's memory.
    """
    own = memory._STATUS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_STATUS", Path("no-proc"))
        yield own


@pytest.fixture(scope="module")
def weighed(status_file: Path) -> Iterator[None]:
    """The memory of arms is measured, to the end of the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_STATUS", status_file)
        yield


@pytest.fixture(scope="session", autouse=True)
def _power_stays() -> Iterator[None]:
    """Nothing waits for the disk: what is written need not survive a loss of power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
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
