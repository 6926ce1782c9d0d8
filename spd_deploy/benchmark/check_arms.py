"""Opens every arm once before anything is timed: it proves its logits and is weighed."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace

from spd_deploy.benchmark.arms import Arm, ArmSource
from spd_deploy.benchmark.device.cuda_tools import DeviceTools
from spd_deploy.benchmark.records import ArmFacts, BenchmarkSettings, ResidentMemory, Skipped
from spd_deploy.domain.errors import Unavailable, reason_of
from spd_deploy.domain.progress import Progress
from spd_deploy.sessions.protocol import Session

Weigh = Callable[[ArmSource, BenchmarkSettings], ResidentMemory | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedArm:
    """An arm that runs here.

    Attributes:
        session: stays open until the run ends; None where each round opens its own.
        device_bytes: memory of the GPU that opening and checking it took.
    """

    arm: Arm
    facts: ArmFacts
    session: Session | None = None
    device_bytes: int | None = None

    def session_in_round(self, settings: BenchmarkSettings) -> AbstractContextManager[Session]:
        """Its session for one round: a new one, or the one that stays open."""
        return self.arm.open(settings) if self.session is None else nullcontext(self.session)


def check_arms(
    arms: Sequence[Arm],
    settings: BenchmarkSettings,
    stack: ExitStack,
    *,
    weigh: Weigh,
    device: DeviceTools | None,
    baselines: Collection[str],
    skip_failing: bool,
    progress: Progress,
) -> tuple[tuple[CheckedArm, ...], tuple[Skipped, ...]]:
    """The arms that run here, and those that were left out, with the reason.

    One of several baselines may be left out, and with ``skip_failing`` any arm. On a GPU the
    sessions stay open until ``stack`` closes them.

    Raises:
        SpdError: an arm that may not be left out does not run.
        Unavailable: none of several baselines runs.
    """
    found, failed = [], []
    with progress.stage("check and weigh", len(arms)) as advance:
        for arm in arms:
            try:
                found.append(_checked(arm, settings, stack, weigh, device))
            except Exception as err:
                one_of_several = arm.name in baselines and len(baselines) > 1
                if not (one_of_several or skip_failing):
                    raise
                failed.append(Skipped(name=arm.name, reason=reason_of(err)))
                progress.note(f"{arm.name} is left out: {reason_of(err)}")
            advance(note=arm.name)
    if baselines and not any(one.arm.name in baselines for one in found):
        raise Unavailable(
            "none of the baselines runs here, so there is nothing to compare with",
            got="; ".join(f"{one.name}: {one.reason}" for one in failed),
            fix="repair one of them, or measure without a baseline",
        )
    return tuple(found), tuple(failed)


def _checked(
    arm: Arm,
    settings: BenchmarkSettings,
    stack: ExitStack,
    weigh: Weigh,
    device: DeviceTools | None,
) -> CheckedArm:
    """Open and check one arm; a session that fails is closed at once."""
    before = 0 if device is None else device.used_bytes()
    with ExitStack() as alone:
        session = alone.enter_context(arm.open(settings))
        parity = arm.check(session)
        facts = arm.facts(session.description, parity)  # a session may learn from its first run
        used = None if device is None else max(0, device.used_bytes() - before)
        if device is None:
            alone.close()  # on a CPU nothing else is open while an arm is weighed
        memory = None if arm.source is None else weigh(arm.source, settings)
        stack.push(alone.pop_all())
    return CheckedArm(
        arm=arm,
        facts=replace(facts, memory=memory),
        session=None if device is None else session,
        device_bytes=used,
    )
