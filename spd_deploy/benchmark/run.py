"""One benchmark from artefacts to report: check, weigh, measure."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from time import perf_counter_ns

from spd_deploy.benchmark.arms import Arm, batches_for, facts_of, open_arm
from spd_deploy.benchmark.layers.profile_layers import profile_layers, refuse_unmeasurable
from spd_deploy.benchmark.measure import measure
from spd_deploy.benchmark.memory import memory_of
from spd_deploy.benchmark.records import ArmFacts, BenchmarkSettings, ResidentMemory
from spd_deploy.benchmark.report import Report
from spd_deploy.domain.artefact import Artefact, is_artefact, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.machine.facts import this_machine
from spd_deploy.sessions.open import prove
from spd_deploy.sessions.protocol import Session
from spd_deploy.timing.host_clock import Clock
from spd_deploy.timing.machine_load import LoadObserver, load_average

Open = Callable[[Arm, BenchmarkSettings], Session]
Weigh = Callable[[Arm, BenchmarkSettings], ResidentMemory | None]


def run_benchmark(
    arms: Sequence[Arm],
    settings: BenchmarkSettings,
    *,
    baseline: str | None = None,
    profile: bool = False,
    progress: Progress | None = None,
    clock: Clock = perf_counter_ns,
    open_session: Open = open_arm,
    weigh: Weigh = memory_of,
) -> Report:
    """Compare ``arms``, of which ``baseline`` names one, or measure them each for itself.

    Every arm proves its logits and is weighed before any is timed. With ``profile`` the operators
    of each sparse fp32 arm in ONNX Runtime are timed afterwards, in turns with a dense twin of its
    own; of the other sparse arms it is told why not.

    Raises:
        BadArtefact: an arm does not give its checkpoint's logits, or takes shorter texts only.
        Unavailable: the device is not there.
    """
    progress = progress or Silent()
    load_before = load_average()
    batches = batches_for(arms, settings)
    sparse = [arm for arm in arms if profile and arm.artefact.manifest.sparsity is not None]
    unprofiled = {arm.name: why for arm in sparse if (why := why_unprofiled(arm)) is not None}
    for name, why in unprofiled.items():
        progress.note(f"{name} is not profiled: {why}")
    looked_into = [arm for arm in sparse if arm.name not in unprofiled]
    for arm in looked_into:
        refuse_unmeasurable(arm, settings)
    facts = _facts(arms, settings, progress, open_session, weigh)
    openers = {arm.name: partial(open_session, arm, settings) for arm in arms}
    observer = LoadObserver(load_before)
    series = measure(openers, batches, settings, clock=clock, progress=progress)
    conditions = observer.conditions()
    layers = [profile_layers(arm, settings, progress=progress) for arm in looked_into]
    return Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=this_machine(),
        settings=settings,
        conditions=conditions,
        baseline=baseline,
        arms=facts,
        series=series,
        layers=tuple(chain.from_iterable(layers)),
        unprofiled=unprofiled,
    )


@contextlib.contextmanager
def baseline_from(path: Path, *, progress: Progress) -> Iterator[Artefact]:
    """The baseline that ``path`` holds: an artefact, or a checkpoint exported for the occasion.

    The export runs every matrix dense, whatever zeros it has, and is gone with the context.
    """
    if is_artefact(path):
        yield open_artefact(path)
        return
    from exporters.export import artefact_from_checkpoint

    checkpoint = as_dense(open_checkpoint(path))
    with tempfile.TemporaryDirectory(prefix="spd-bench-") as scratch:
        folder = Path(scratch) / path.resolve().name
        yield artefact_from_checkpoint(checkpoint, folder, progress=progress)


def as_dense(checkpoint: Checkpoint) -> Checkpoint:
    """The same weights without the promise of a pattern, under the score they have."""
    if checkpoint.pattern is None:
        return checkpoint
    scores = {"dense": checkpoint.scores["sparse"]} if "sparse" in checkpoint.scores else {}
    return replace(checkpoint, pattern=None, densities={}, detected=None, scores=scores)


def why_unprofiled(arm: Arm) -> str | None:
    """Why the operators of a sparse arm are not timed; None where they can be."""
    if arm.runtime != "onnxruntime":
        return f"it runs in {arm.runtime}, and operators are timed by ONNX Runtime's profiler alone"
    if (precision := arm.artefact.manifest.precision) != "fp32":
        return f"it is {precision}, and the dense twin it would be compared with is fp32"
    return None


def _facts(
    arms: Sequence[Arm],
    settings: BenchmarkSettings,
    progress: Progress,
    open_session: Open,
    weigh: Weigh,
) -> tuple[ArmFacts, ...]:
    """Each arm self-tested and weighed."""
    found = []
    with progress.stage("check and weigh", len(arms)) as advance:
        for arm in arms:
            with open_session(arm, settings) as session:
                runtime, parity = session.description, prove(session, arm.artefact)
            found.append(facts_of(arm, runtime, weigh(arm, settings), parity=parity))
            advance(note=arm.name)
    return tuple(found)
