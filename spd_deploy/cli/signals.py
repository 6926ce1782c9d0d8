"""What a Ctrl-C does to long work: it is answered at once, and the way to go on is named."""

import contextlib
import os
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from spd_deploy.cli.console import speaks
from spd_deploy.domain.errors import Interrupted, NotWritten

_AFTER_THIS_STEP = "stops after this step and saves its state; a second Ctrl-C stops at once"


@contextlib.contextmanager
def stop_on_signals(answer: str = _AFTER_THIS_STEP) -> Iterator[Callable[[], bool]]:
    """Yield a question that Ctrl-C or SIGTERM turns to True; a second Ctrl-C stops at once.

    Args:
        answer: told as soon as the signal comes, since the step under way may take long.

    Python delivers signals to the main thread alone; in another one the question stays False.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        """Answer and remember the first signal; give the second its usual effect."""
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        if speaks():  # past Python's streams: one that is being written to must not be entered
            with contextlib.suppress(OSError):
                os.write(2, f"\nspd: {answer}\n".encode())

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def going_on(how: str, *, begun: Callable[[], bool]) -> Iterator[None]:
    """Name the way to go on in an error that ends work which left something to go on with.

    Args:
        how: the way, as a sentence without a full stop.
        begun: asked then; where nothing is left the same command starts anew.

    Raises:
        Interrupted: for an interrupted block.
        NotWritten: for a block that could not write.
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


def resume_command(output: Path) -> str:
    """How a training in ``output`` is gone on with."""
    return f"go on with: spd train --resume --output {shlex.quote(str(output))}"
