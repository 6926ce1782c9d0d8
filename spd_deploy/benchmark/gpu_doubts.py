"""Why a reader should not trust a number of the GPU: what its state and its clocks say themselves.

Pure functions. A card that does not tell of something is doubted for it, once.
"""

from collections.abc import Iterator, Sequence

from spd_deploy.benchmark.device.device_records import DevicePart
from spd_deploy.benchmark.formatting import percent
from spd_deploy.benchmark.gpu_judge import DeviceRow
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.warnings import Caveat
from spd_deploy.domain.nvidia import LOCKED, GpuState

# Above this share of the GPU's time the host is what is measured.
LAUNCH_BOUND = 0.8
CLOCK_MOVED = 0.05
BUSY_BEFORE_PERCENT = 5.0
# A look at a card that is less busy than this says little of its clock under load.
WORKING_PERCENT = 50.0


def device_caveats(report: Report, rows: Sequence[DeviceRow]) -> tuple[Caveat, ...]:
    """All of them: about the card first, then about arms, then about arms at a shape."""
    if report.gpu is None:
        return ()
    found = [Caveat(about="the GPU", what=what) for what in card_caveats(report.gpu)]
    known = {row.arm for row in rows}
    for arm in report.arms:
        if arm.name not in known:
            what = "its time on the GPU alone is not known: its session does not offer such runs"
            found.append(Caveat(about=arm.name, what=what))
    return (*found, *(doubt for row in rows for doubt in row_caveats(row)))


def card_caveats(run: DevicePart) -> Iterator[str]:
    """Throttling, clocks that moved or may, and other work."""
    yield from state_caveats(run.during)
    if run.processes_before:
        count = run.processes_before
        yield f"{count} other process{'es' if count > 1 else ''} computed on it before the run"
    busy = None if run.before is None else run.before.busy_percent
    if busy is not None and busy > BUSY_BEFORE_PERCENT:
        yield f"it was not idle before the run: {busy:.0f} % busy"


def state_caveats(looks: Sequence[GpuState]) -> Iterator[str]:
    """What the looks at a card while it was measured give reason for."""
    if not looks:
        yield "what its clocks did is not known: the driver did not tell; see `spd doctor`"
    working = [look for look in looks if is_working(look)]
    yield from throttle_caveats(working)
    yield from clock_caveats(working)


def is_working(look: GpuState) -> bool:
    """Whether the card was at work when it was looked at, or does not tell."""
    return look.busy_percent is None or look.busy_percent >= WORKING_PERCENT


def throttle_caveats(looks: Sequence[GpuState]) -> Iterator[str]:
    """Every reason that held the clock back under load, with the share of looks that found it."""
    told = [look for look in looks if look.reasons is not None]
    if looks and not told:
        yield "whether it was throttled is not known: it does not tell"
    reasons = dict.fromkeys(reason for look in told for reason in look.throttled_by)
    for reason in reasons:
        share = sum(reason in look.throttled_by for look in told) / len(told)
        yield f"it was throttled under load ({reason}) at {percent(share)} of the looks at it"


def clock_caveats(looks: Sequence[GpuState]) -> Iterator[str]:
    """A clock that moved under load, and one that nobody locked."""
    clocks = [look.sm_mhz for look in looks if look.sm_mhz is not None]
    if clocks and (moved := 1 - min(clocks) / max(clocks)) > CLOCK_MOVED:
        yield (
            f"its clock moved by {percent(moved)} under load, between {min(clocks):.0f} and "
            f"{max(clocks):.0f} MHz"
        )
    told = [look.reasons for look in looks if look.reasons is not None]
    if told and not any(LOCKED in reasons for reasons in told):
        yield "its clocks were not locked"


def row_caveats(row: DeviceRow) -> Iterator[Caveat]:
    """A run that is bound by the host, a way that is missing, a limit that was passed."""
    if row.enqueue_share > LAUNCH_BOUND:
        what = (
            f"it is launch-bound: the host's enqueueing takes more than {percent(LAUNCH_BOUND)} of "
            "the GPU's time"
        )
        yield Caveat(
            about=row.arm, what=what, shape=str(row.shape), amount=percent(row.enqueue_share)
        )
    if row.share is not None and row.share > 1:
        yield Caveat(
            about=row.arm,
            what="it ran below the least time that was thought possible: a rate or a count is off",
            shape=str(row.shape),
            amount=percent(row.share),
        )
