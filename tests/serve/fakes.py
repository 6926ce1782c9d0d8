"""A session whose logits are a formula of its input, and what stands around a session.

The formula gives every row its own logits, so a test sees at once when an answer went to the wrong
row. A :class:`Gate` holds a session inside ``run`` for as long as a test wants it busy.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serve.model_card import ModelCard
from serve.open_model import ServedModel
from spd_deploy.domain.tasks import task_named
from spd_deploy.domain.text import Batch, Tokenizer, Tokens
from spd_deploy.sessions.protocol import Closing, Description
from tests.tiny import tiny_tokenizer

PATIENCE_S = 10.0
"""How long a test waits for what must happen, before it calls it a failure."""


def formula(ids: Sequence[int]) -> NDArray[np.float32]:
    """The fake's two logits for a row of token ids."""
    return np.asarray([sum(ids) % 7, len(ids) % 5], np.float32)


class Gate:
    """A door inside ``run``: closed, it holds the session until :meth:`open`."""

    def __init__(self) -> None:
        self._open, self._reached = threading.Event(), threading.Event()
        self._open.set()

    def close(self) -> None:
        """Hold the next batch."""
        self._open.clear()
        self._reached.clear()

    def open(self) -> None:
        """Let all batches through."""
        self._open.set()

    def wait_until_reached(self) -> None:
        """Return once a batch is in the session."""
        assert self._reached.wait(PATIENCE_S)

    def pass_through(self) -> None:
        """What the session does at the door."""
        self._reached.set()
        assert self._open.wait(PATIENCE_S)


class FakeSession(Closing):
    """Answers by :func:`formula`, remembers its batches, and fails where it is told to.

    ``fail`` is asked about every batch, as a list of rows of ids, and raises if it likes.
    """

    def __init__(self, fail: Callable[[list[tuple[int, ...]]], None] = lambda rows: None) -> None:
        self.fail = fail
        self.gate = Gate()
        self.batches: list[list[tuple[int, ...]]] = []
        self.closed = False
        self.description = Description(
            runtime="fake", version="0", device="cpu", precision="fp32", threads=1
        )

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """The formula's logits ``[B, C]``."""
        rows = rows_of(batch)
        self.batches.append(rows)
        self.gate.pass_through()
        self.fail(rows)
        return np.stack([formula(row) for row in rows])

    def close(self) -> None:
        """Remember it."""
        self.closed = True


def rows_of(batch: Batch) -> list[tuple[int, ...]]:
    """Each row's ids without its padding."""
    return [
        tuple(map(int, ids_S[mask_S == 1]))
        for ids_S, mask_S in zip(batch.ids_BS, batch.mask_BS, strict=True)
    ]


def tokens(*ids: int) -> Tokens:
    """A row of these ids."""
    return Tokens(ids=ids, types=(0,) * len(ids))


def fake_served(
    folder: Path, session: FakeSession, *, task: str = "sst2", max_tokens: int = 32
) -> ServedModel:
    """The fake with the tiny tokenizer, as something to serve."""
    file = folder / "tokenizer.json"
    file.write_text(tiny_tokenizer(), encoding="utf-8")
    return ServedModel(
        name="fake",
        session=session,
        tokenizer=Tokenizer(file, max_tokens=max_tokens),
        task=task_named(task),
        card=ModelCard(
            format="fake", pattern="dense", sparsity=None, density=None, sha256="0" * 64
        ),
    )
