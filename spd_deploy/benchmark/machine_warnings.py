"""Why times of this machine may be wrong: other work, its processor's clock, its GPU's state.

Shared by the benchmark, the map and the tuner. Pure functions; each text names one reason.
"""

from collections.abc import Iterator, Sequence

from spd_deploy.benchmark.device.device_records import DevicePart
from spd_deploy.benchmark.formatting import percent
from spd_deploy.domain.nvidia import LOCKED, GpuState
from spd_deploy.machine.facts import Machine
from spd_deploy.timing.machine_load import Conditions

BUSY_SHARE = 0.10
LOAD_SHARE = 0.25
CLOCK_MOVED = 0.05
BUSY_BEFORE_PERCENT = 5.0
# The clock of a GPU that is less busy than this says little of its clock under load.
WORKING_PERCENT = 50.0


def load_caveats(machine: Machine, seen: Conditions, threads: int | None) -> Iterator[str]:
    """Other work on the processor, more threads than cores, a clock that may change."""
    if seen.others_cores > BUSY_SHARE * machine.usable_cores:
        yield (
            f"other processes kept {seen.others_cores:.1f} of {machine.usable_cores:g} cores busy "
            "during the run"
        )
    if seen.load_before is not None and seen.load_before > LOAD_SHARE * machine.usable_cores:
        yield f"the machine was not idle before the run: load {seen.load_before:.2f}"
    if threads is not None and threads > machine.usable_cores:
        yield f"{threads} threads share {machine.usable_cores:g} usable cores"
    if machine.governor not in (None, "performance"):
        yield f"the processor's clock may change: its governor is {machine.governor!r}"


def card_caveats(part: DevicePart) -> Iterator[str]:
    """Throttling of the GPU, clocks that moved or are not locked, and other work on it."""
    yield from state_caveats(part.during)
    if part.processes_before:
        count = part.processes_before
        yield f"{count} other process{'es' if count > 1 else ''} computed on it before the run"
    busy = None if part.before is None else part.before.busy_percent
    if busy is not None and busy > BUSY_BEFORE_PERCENT:
        yield f"it was not idle before the run: {busy:.0f} % busy"


def state_caveats(states: Sequence[GpuState]) -> Iterator[str]:
    """Throttling and clocks that moved, from the states that were read during the run."""
    if not states:
        yield "its clocks are not known: the driver did not tell; see `spd doctor`"
    working = [state for state in states if is_working(state)]
    yield from throttle_caveats(working)
    yield from clock_caveats(working)


def is_working(state: GpuState) -> bool:
    """Whether the card was at work; True where it does not tell."""
    return state.busy_percent is None or state.busy_percent >= WORKING_PERCENT


def throttle_caveats(states: Sequence[GpuState]) -> Iterator[str]:
    """Each reason that held the clock back under load, with the share of readings that had it."""
    known = [state for state in states if state.reasons is not None]
    if states and not known:
        yield "it is not known whether it was throttled: the card does not tell"
    reasons = dict.fromkeys(reason for state in known for reason in state.throttled_by)
    for reason in reasons:
        share = sum(reason in state.throttled_by for state in known) / len(known)
        yield f"it was throttled under load ({reason}) in {percent(share)} of the readings"


def clock_caveats(states: Sequence[GpuState]) -> Iterator[str]:
    """A clock that moved under load, and clocks that nobody locked."""
    clocks = [state.sm_mhz for state in states if state.sm_mhz is not None]
    if clocks and (moved := 1 - min(clocks) / max(clocks)) > CLOCK_MOVED:
        yield (
            f"its clock moved by {percent(moved)} under load, between {min(clocks):.0f} and "
            f"{max(clocks):.0f} MHz"
        )
    known = [state.reasons for state in states if state.reasons is not None]
    if known and not any(LOCKED in reasons for reasons in known):
        yield "its clocks were not locked"
