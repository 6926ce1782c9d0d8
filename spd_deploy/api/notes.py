"""Progress of a function: silent unless asked for, with every message kept."""

import contextlib
from collections.abc import Collection

from spd_deploy.domain.progress import Advance, Progress, Silent


class NoteRecorder:
    """Passes everything on and keeps the notes, so that a quiet call hides no warning."""

    def __init__(self, progress: bool | Progress, *, watch: bool = False) -> None:
        """Listen for a caller.

        Args:
            progress: True for the bars of the command line, False for silence, or a listener.
            watch: let bars say when other processes keep the cores busy.
        """
        self._listener = _listener(progress, watch=watch)
        self._notes: list[str] = []

    @property
    def notes(self) -> tuple[str, ...]:
        """Every note so far, in order."""
        return tuple(self._notes)

    def stage(
        self, name: str, total: int, *, slow_steps: Collection[int] = ()
    ) -> contextlib.AbstractContextManager[Advance]:
        """A stage of the listener."""
        return self._listener.stage(name, total, slow_steps=slow_steps)

    def note(self, text: str) -> None:
        """Keep a note, and pass it on."""
        self._notes.append(text)
        self._listener.note(text)


def _listener(progress: bool | Progress, *, watch: bool) -> Progress:
    """A listener that the caller gave, bars on standard error for True, or a silent one."""
    if isinstance(progress, bool):
        if not progress:
            return Silent()
        from spd_deploy.cli.output.console import TerminalProgress, speaks

        return TerminalProgress(watch=watch) if speaks() else Silent()
    return progress
