"""What a session on a GPU does next: phases with expected seconds, a deadline and a manifest.

A machine with a GPU may be lent for ten minutes at a time. A phase is started only where its
expected seconds are left, and a later call goes on where an earlier one ended. This module decides
and remembers; it needs no GPU.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, assert_never

from spd_deploy.domain.errors import BadReport
from spd_deploy.domain.files import read_json, write_json

SCHEMA = 1
MANIFEST_FILE = "manifest.json"
# A phase that ended its process so many times is not started again.
_MOST_ATTEMPTS = 2

Line = Mapping[str, Any]
State = Literal["done", "given up", "no time", "next"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A part of a session, with the seconds that it is expected to take; most worth comes first."""

    name: str
    expected_s: float
    work: Callable[[], Iterable[Line]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """What all calls together have done.

    Attributes:
        done: seconds of each phase that is complete.
        attempts: how often each phase was started.
        cut_s: the most seconds that a phase ran before the deadline cut it off.
    """

    done: Mapping[str, float] = field(default_factory=dict)
    attempts: Mapping[str, int] = field(default_factory=dict)
    cut_s: Mapping[str, float] = field(default_factory=dict)

    def started(self, phase: str) -> Self:
        """One attempt more."""
        attempts = {**self.attempts, phase: self.attempts.get(phase, 0) + 1}
        return dataclasses.replace(self, attempts=attempts)

    def finished(self, phase: str, seconds: float) -> Self:
        """A phase that is complete."""
        return dataclasses.replace(self, done={**self.done, phase: seconds})

    def cut(self, phase: str, seconds: float) -> Self:
        """A phase that the deadline ended; that was no fault of its own, so no attempt counts."""
        attempts = {**self.attempts, phase: self.attempts.get(phase, 1) - 1}
        cut_s = {**self.cut_s, phase: max(seconds, self.cut_s.get(phase, 0.0))}
        return dataclasses.replace(self, attempts=attempts, cut_s=cut_s)


def state_of(phase: Phase, progress: Progress, *, left_s: float) -> State:
    """Whether a phase is done, given up, too long for the time that is left, or can be next."""
    if phase.name in progress.done:
        return "done"
    if progress.attempts.get(phase.name, 0) >= _MOST_ATTEMPTS:
        return "given up"
    needed_s = max(phase.expected_s, 1.2 * progress.cut_s.get(phase.name, 0.0))
    return "next" if needed_s <= left_s else "no time"


def next_phase(phases: Sequence[Phase], progress: Progress, *, left_s: float) -> Phase | None:
    """The first phase in order of worth that can be done in the time that is left."""
    states = ((phase, state_of(phase, progress, left_s=left_s)) for phase in phases)
    return next((phase for phase, state in states if state == "next"), None)


def read_progress(folder: Path) -> Progress:
    """What earlier calls with this folder did; nothing where there was none.

    Raises:
        BadReport: a manifest that this version did not write.
    """
    file = folder / MANIFEST_FILE
    if not file.exists():
        return Progress()
    fix = "name another folder with --output"
    document = read_json(file, error=BadReport, fix=fix)
    if document.pop("schema", None) != SCHEMA or set(document) != {"done", "attempts", "cut_s"}:
        raise BadReport(f"{file} is no manifest of this version", got=sorted(document), fix=fix)
    return Progress(**document)


def write_progress(folder: Path, progress: Progress) -> None:
    """Write the manifest, whole or not at all."""
    write_json(folder / MANIFEST_FILE, {"schema": SCHEMA, **dataclasses.asdict(progress)})


class DeadlinePassed(BaseException):
    """Raised inside a phase when the session's time is up; no handler of faults catches it."""


def run_phases(
    phases: Sequence[Phase],
    folder: Path,
    *,
    until_s: float,
    clock: Callable[[], float],
    reason_of: Callable[[Exception], str],
) -> Iterator[Line]:
    """The lines of phase after phase until the time is up, then one for each that was not done.

    The manifest is written before a phase starts and after it ended, so that a killed process
    leaves it right.
    """
    begun, progress = clock(), read_progress(folder)
    while phase := next_phase(phases, progress, left_s=until_s - (clock() - begun)):
        at, progress = clock(), progress.started(phase.name)
        write_progress(folder, progress)
        try:
            for line in phase.work():
                yield {"phase": phase.name, **line}
            progress = progress.finished(phase.name, clock() - at)
        except DeadlinePassed:
            progress = progress.cut(phase.name, clock() - at)
        except Exception as err:  # noqa: BLE001 - the phases after it are to run
            yield {"phase": phase.name, "not_run": reason_of(err)}
        write_progress(folder, progress)
    left_s = until_s - (clock() - begun)
    for phase in phases:
        match state_of(phase, progress, left_s=left_s):
            case "no time":
                yield {"phase": phase.name, "not_run": f"no time: {phase.expected_s:g} s needed"}
            case "given up":
                yield {"phase": phase.name, "not_run": f"failed {_MOST_ATTEMPTS} times"}
            case "done" | "next":
                pass
            case never:
                assert_never(never)
