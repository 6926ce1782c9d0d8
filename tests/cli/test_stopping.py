"""A Ctrl-C is answered at once, and an error that leaves work to go on with says how."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spd_deploy.cli.long_run.signals import (
    interrupt_at_once,
    resume_command,
    resume_hint,
    stop_on_signals,
)
from spd_deploy.domain.errors import BadData, Interrupted, NotWritten, SpdError
from spd_deploy.domain.files import not_written

# Ctrl-C at the moment when a module of the command line is loaded.
LOADING = """
import sys
from spd_deploy.__main__ import main
class CtrlC:
    def find_spec(self, name, *rest):
        if name == sys.argv[1]:
            raise KeyboardInterrupt
sys.meta_path.insert(0, CtrlC())
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_answered_before_the_step_ends(
    number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """The answer is written by the signal itself, and the question turns to True."""
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert "stops after this step" in capfd.readouterr().err
        assert asked()

    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_signal_stops_at_once() -> None:
    """A second Ctrl-C has the effect that one has anywhere."""
    with pytest.raises(KeyboardInterrupt), stop_on_signals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_work_without_a_state_stops_at_the_first_signal(number: int) -> None:
    """Within such a part of a run the signal is not put off; after it it is again."""
    with stop_on_signals() as asked:
        with pytest.raises(KeyboardInterrupt), interrupt_at_once():
            os.kill(os.getpid(), number)
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()


def test_one_process_of_many_answers(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of processes that a launcher started, which all get the signal, the first speaks."""
    monkeypatch.setenv("RANK", "1")
    with stop_on_signals() as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked()

    assert not capfd.readouterr().err


@pytest.mark.parametrize(
    ("raised", "kind", "begun"),
    [
        (Interrupted("stopped at step 3", fix="-"), Interrupted, "go on so"),
        (KeyboardInterrupt(), Interrupted, "go on so"),
        (not_written(Path("out"), OSError(errno.ENOSPC, "full")), NotWritten, "; then go on so"),
    ],
)
def test_an_error_names_the_way_to_go_on(
    raised: BaseException, kind: type[SpdError], begun: str
) -> None:
    """Where something is left the way is named, and where nothing is the same command starts."""
    with pytest.raises(kind) as caught, resume_hint("go on so", begun=lambda: True):
        raise raised
    assert str(caught.value).endswith(begun)

    with pytest.raises(kind) as caught, resume_hint("go on so", begun=lambda: False):
        raise raised
    assert "go on so" not in str(caught.value)


def test_other_errors_are_left_as_they_are() -> None:
    """What is wrong with the input is not mended by going on."""
    with pytest.raises(BadData) as caught, resume_hint("go on so", begun=lambda: True):
        raise BadData("no such file", fix="name another")

    assert str(caught.value) == "no such file; name another"


def test_the_command_can_be_pasted() -> None:
    """A folder with a space in its name is quoted."""
    command = resume_command(Path("my runs/x"))

    assert command == "continue with: spd train --resume --output 'my runs/x'"


@pytest.mark.parametrize("module", ["click", "spd_deploy.cli.main", "spd_deploy.cli.train"])
def test_a_ctrl_c_is_one_line_before_the_command_is_read(module: str) -> None:
    """Loading the command line takes a moment too, and ends like any other."""
    done = subprocess.run(
        [sys.executable, "-c", LOADING, module], capture_output=True, text=True, check=False
    )

    assert done.returncode == 130
    assert done.stderr == "spd: stopped; run the command again\n"
