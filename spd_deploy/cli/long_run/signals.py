"""Ctrl-C during a long run: it is acknowledged at once, and the error says how to continue."""

import contextlib
import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from spd_deploy.cli.output.console import speaks
from spd_deploy.domain.errors import Interrupted, NotWritten

_AFTER_THIS_STEP = "stops after this step and saves its state; a second Ctrl-C stops at once"


@contextlib.contextmanager
def stop_on_signals(answer: str = _AFTER_THIS_STEP) -> Iterator[Callable[[], bool]]:
    """Yield a function that returns True once Ctrl-C or SIGTERM has come.

    The first signal is only remembered. The second one raises ``KeyboardInterrupt``.

    Args:
        answer: printed to stderr as soon as the signal comes, since the current step may be long.

    Python delivers signals to the main thread only. In another thread the function stays False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    stop_requested = False

    def request_stop(number: int, frame: FrameType | None) -> None:
        """Remember and acknowledge the first signal; interrupt at the second."""
        nonlocal stop_requested
        if stop_requested:
            raise KeyboardInterrupt
        stop_requested = True
        if speaks():  # a signal handler must not write to a Python stream: it may be in use
            with contextlib.suppress(OSError):
                os.write(2, f"\nspd: {answer}\n".encode())

    with _handled_by(request_stop):
        yield lambda: stop_requested


@contextlib.contextmanager
def interrupt_at_once() -> Iterator[None]:
    """Make Ctrl-C and SIGTERM raise ``KeyboardInterrupt``, for work that has no state to save.

    It also stops the processes that the work has started. Within :func:`stop_on_signals` it takes
    its place until the block ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        """Raise what Ctrl-C raises in Python."""
        raise KeyboardInterrupt

    with _handled_by(interrupt):
        yield


@contextlib.contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let ``handler`` answer Ctrl-C and SIGTERM until the block ends."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def resume_hint(how: str, *, begun: Callable[[], bool]) -> Iterator[None]:
    """Add to an ``Interrupted`` or ``NotWritten`` error how the work is continued.

    Args:
        how: what to do, as a sentence without a full stop.
        begun: returns whether the work left anything to continue from. If not, the same command
            starts from the beginning.

    Raises:
        Interrupted: the block was interrupted.
        NotWritten: the block could not write a file.
    """
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as err:
        what = err.what if isinstance(err, Interrupted) else "stopped at once"
        raise Interrupted(what, fix=how if begun() else "run the command again") from err
    except NotWritten as err:
        if not begun():
            raise
        raise NotWritten(err.what, got=err.got, fix=f"{err.fix}; then {how}") from err


def resume_command(output: Path, verb: str = "train") -> str:
    """The command that continues the run of ``spd VERB`` in ``output``."""
    return f"continue with: spd {verb} --resume --output {shlex.quote(str(output))}"
