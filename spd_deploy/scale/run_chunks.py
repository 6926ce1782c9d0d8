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


# Each window with its logits, in order; windows are taken as room is for them.
Answered = Callable[[Iterator[Window]], Iterator[tuple[Window, Logits]]]


def run_windows(
    windows: Iterator[Window], answered: Answered, write: Callable[[Window, Logits], None]
) -> None:
    """Answer each window, and write it, in order.

    One window is read ahead, and one is written, beside those that are answered. Runtimes release
    Python's lock while they compute, so that reading and writing take place beside them.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        for window, logits_BC in answered(_read_ahead(windows, reader)):
            if written is not None:
                written.result()
            written = writer.submit(write, window, logits_BC)
        if written is not None:
            written.result()


def _read_ahead(windows: Iterator[Window], reader: ThreadPoolExecutor) -> Iterator[Window]:
    """The windows, each read while the one before it is in use."""
    upcoming = reader.submit(next, windows, None)
    while (window := upcoming.result()) is not None:
        upcoming = reader.submit(next, windows, None)
        yield window


def answered_by(
    opened: "OpenedModel", begin: Callable[[Window], None], advance: "Advance"
) -> Answered:
    """How the windows are answered: by this process's session, or by the actors of Ray.

    Args:
        opened: the model.
        begin: is told of each window before it runs.
        advance: gets the number of rows that are answered.
    """
    from spd_deploy.scale.ray_model import RaySession
    from spd_deploy.sessions.offline import logits_of

    session = opened.session
    if isinstance(session, RaySession):
        return lambda windows: session.answered(windows, begin, advance)

    def one_by_one(windows: Iterator[Window]) -> Iterator[tuple[Window, Logits]]:
        """Each window in this process."""
        for window in windows:
            begin(window)
            yield window, logits_of(session, opened.tokenizer, window.tokens, advance)

    return one_by_one
