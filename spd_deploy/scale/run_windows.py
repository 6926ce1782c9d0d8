"""Windows through a session while the next one is read and the last one is written."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spd_deploy.scale.windows import Window

if TYPE_CHECKING:
    from spd_deploy.domain.progress import Advance
    from spd_deploy.sessions.open import OpenedModel

Logits = NDArray[np.float32]


def run_windows(
    windows: Iterator[Window],
    run: Callable[[Window], Logits],
    write: Callable[[Window, Logits], None],
) -> None:
    """Answer each window, and write it, in order.

    Three windows are in memory at most. Runtimes release Python's lock while they compute, so that
    reading and writing take place beside them.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        upcoming = reader.submit(next, windows, None)
        written: Future[None] | None = None
        while (window := upcoming.result()) is not None:
            upcoming = reader.submit(next, windows, None)
            logits_BC = run(window)
            if written is not None:
                written.result()
            written = writer.submit(write, window, logits_BC)
        if written is not None:
            written.result()


def run_in(opened: "OpenedModel", advance: "Advance") -> Callable[[Window], Logits]:
    """The run of a window in this process's session."""
    from spd_deploy.sessions.offline import logits_of

    return lambda window: logits_of(opened.session, opened.tokenizer, window.tokens, advance)
