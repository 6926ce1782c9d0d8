"""A small model that the tests of long files share, and one Ray for all tests that need it."""

import gc
import logging
import warnings
from collections.abc import Iterator
from types import ModuleType

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


@pytest.fixture(scope="package")
def started_ray() -> Iterator[ModuleType]:
    """A Ray of two cores on this machine, which the code under test uses as it is.

    It ends with the tests of this folder: its processes would take time from all others.
    """
    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        warnings.simplefilter("ignore")  # Ray leaves its log files to the garbage collector
        ray = pytest.importorskip("ray", reason="Ray is not installed: the extra ray")
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=200_000_000,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        yield ray
    with warnings.catch_warnings():  # a test's filter is another than that of its fixtures' start
        warnings.simplefilter("ignore")
        ray.shutdown()
        gc.collect()
