"""How long work tells of itself, without knowing who listens.

The trainer, the exporter and the benchmark take a :class:`Progress`; the command line draws bars
from it on a terminal and writes plain lines into a log.
"""

import contextlib
from collections.abc import Collection, Iterator
from typing import Protocol


class Advance(Protocol):
    """Tells that some steps are done."""

    def __call__(self, steps: int = 1, *, note: str | None = None) -> None:
        """``steps`` more are done; ``note`` says how it goes, such as the current loss."""
        ...


class Progress(Protocol):
    """Someone who wants to know how far the work is."""

    def stage(
        self, name: str, total: int, *, slow_steps: Collection[int] = ()
    ) -> contextlib.AbstractContextManager[Advance]:
        """A stage of ``total`` steps begins; leaving the context ends it.

        ``slow_steps`` (from 0) take longer than the others, so an estimate counts them apart.
        """
        ...

    def note(self, text: str) -> None:
        """Something worth a line of its own."""
        ...


class Silent:
    """A :class:`Progress` that shows nothing, for callers that gave no listener."""

    @contextlib.contextmanager
    def stage(
        self, name: str, total: int, *, slow_steps: Collection[int] = ()
    ) -> Iterator[Advance]:
        """A stage whose steps are not counted."""

        def advance(steps: int = 1, *, note: str | None = None) -> None:
            """Do nothing with the steps and the note."""

        yield advance

    def note(self, text: str) -> None:
        """Drop the text, since nobody reads it."""
