"""Ctrl-C while TensorRT builds, whose C++ swallows what Python raises in it."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from exporters.tensorrt.build import Order, build_engine
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.engines.record import RECORD_FILE
from spd_deploy.domain.progress import Advance, Silent
from tests.engines.conftest import Machine

Made = Callable[..., Machine]


class Impatient(Silent):
    """Presses Ctrl-C when TensorRT tells of its first phase."""

    @contextlib.contextmanager
    def stage(self, name: str, total: int) -> Iterator[Advance]:
        def advance(steps: int = 1, *, note: str | None = None) -> None:
            if note == "Building Engine":
                raise KeyboardInterrupt

        yield advance


def test_ctrl_c_stops_a_build(machine: Made, artefact: Artefact) -> None:
    """It does not fly through TensorRT, which would end the process: TensorRT is told to stop."""
    here = machine()

    with pytest.raises(KeyboardInterrupt):
        build_engine(artefact, Order(), progress=Impatient())

    assert not (artefact.folder / RECORD_FILE).exists()
    assert here.driver.held == 0


@pytest.fixture
def heeded() -> Iterator[None]:
    """Ctrl-C raises, as in a terminal; processes in the background are started to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_a_signal_within_tensorrt_is_not_lost(machine: Made, artefact: Artefact) -> None:
    """C++ swallows what Python raises there; the build ends, and Ctrl-C is itself again."""
    here = machine()
    before = signal.getsignal(signal.SIGINT)
    here.log.during = lambda: signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build_engine(artefact, Order())

    assert here.log.configs == []
    assert signal.getsignal(signal.SIGINT) is before
    assert here.driver.held == 0


def test_another_thread_may_build(machine: Made, artefact: Artefact) -> None:
    """Signals are the main thread's alone, so there nothing is done about them."""
    machine()
    thread = threading.Thread(target=build_engine, args=(artefact, Order(builds=1)))

    thread.start()
    thread.join()

    assert (artefact.folder / RECORD_FILE).exists()
