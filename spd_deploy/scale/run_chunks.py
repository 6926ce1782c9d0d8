"""Chunks through a session while the next one is read and the last one is written."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spd_deploy.scale.chunks import Chunk

if TYPE_CHECKING:
    from spd_deploy.domain.progress import Advance
    from spd_deploy.sessions.open import OpenedModel

Logits = NDArray[np.float32]


# Each chunk with its logits, in order; chunks are taken as room is for them.
Answered = Callable[[Iterator[Chunk]], Iterator[tuple[Chunk, Logits]]]


def run_chunks(
    chunks: Iterator[Chunk], answered: Answered, write: Callable[[Chunk, Logits], None]
) -> None:
    """Answer each chunk, and write it, in order.

    One chunk is read ahead, and one is written, beside those that are answered. Runtimes release
    Python's lock while they compute, so that reading and writing take place beside them.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        written: Future[None] | None = None
        for chunk, logits_BC in answered(_read_ahead(chunks, reader)):
            if written is not None:
                written.result()
            written = writer.submit(write, chunk, logits_BC)
        if written is not None:
            written.result()


def _read_ahead(chunks: Iterator[Chunk], reader: ThreadPoolExecutor) -> Iterator[Chunk]:
    """The chunks, each read while the one before it is in use."""
    upcoming = reader.submit(next, chunks, None)
    while (chunk := upcoming.result()) is not None:
        upcoming = reader.submit(next, chunks, None)
        yield chunk


def answered_by(
    opened: "OpenedModel", begin: Callable[[Chunk], None], advance: "Advance"
) -> Answered:
    """How the chunks are answered: by this process's session, or by the actors of Ray.

    Args:
        opened: the model.
        begin: is told of each chunk before it runs.
        advance: gets the number of rows that are answered.
    """
    from spd_deploy.scale.ray_model import RaySession
    from spd_deploy.sessions.offline import logits_of

    session = opened.session
    if isinstance(session, RaySession):
        return lambda chunks: session.answered(chunks, begin, advance)

    def one_by_one(chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, Logits]]:
        """Each chunk in this process."""
        for chunk in chunks:
            begin(chunk)
            yield chunk, logits_of(session, opened.tokenizer, chunk.tokens, advance)

    return one_by_one
