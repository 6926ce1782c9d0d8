"""Which runtime an artefact is served in: the fastest on this machine that keeps the accuracy.

A candidate must run here and give the checkpoint's logits on the golden inputs. bf16 rounds more
than the export was verified with, so it must also keep the task's metric. The candidates that pass
are timed in turns, one session at a time. Each of the others is reported with its reason.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from statistics import median

from exporters.autotune.networks import random_run
from exporters.autotune.tune import TuningPlan
from exporters.precision import CalibrationSet, Scores
from spd_deploy.domain.artefact import Artefact, RuntimeTiming, save_manifest
from spd_deploy.domain.errors import SpdError, VerificationFailed
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.runtime_choice import CPU_RUNTIMES, RUNTIME_CHOICES, RuntimeChoice
from spd_deploy.sessions.open import prove, session_from_artefact
from spd_deploy.sessions.protocol import Session
from spd_deploy.timing.interleaved import Run, first_unless_faster, time_interleaved

_CANDIDATES = [name for name, one in RUNTIME_CHOICES.items() if one.runtime in CPU_RUNTIMES]


def select_fastest_runtime(
    artefact: Artefact,
    plan: TuningPlan,
    calibration_set: CalibrationSet | None,
    *,
    progress: Progress | None = None,
) -> Artefact:
    """Save the fastest runtime, and the times of all candidates, in the artefact's manifest."""
    progress = progress or Silent()
    candidates = []
    for name in _CANDIDATES:
        try:
            choice = RUNTIME_CHOICES[name]
            if choice.precision is not None and calibration_set is None:
                raise VerificationFailed(
                    "it rounds, and there is no labelled data to measure what that costs",
                    fix="name the task's data: --data",
                )
            artefact = _verified(artefact, choice, calibration_set, plan.threads, progress)
            candidates.append(name)
        except SpdError as err:
            progress.note(f"{name} is left out: {err}")
    with progress.stage("time runtimes", 1) as advance:
        openers = {
            name: partial(_opened, artefact, RUNTIME_CHOICES[name], plan) for name in candidates
        }
        times = time_interleaved(openers, plan.shapes, plan.timing)
        advance()
    timings = tuple(
        RuntimeTiming(runtime=name, seconds=tuple(median(rounds) for rounds in of_shape))
        for name, of_shape in times.items()
    )
    at = tuple(map(str, plan.shapes))
    manifest = replace(artefact.manifest, runtime_timings=timings, timed_shapes=at)
    choice = RUNTIME_CHOICES[fastest_runtime(timings)]
    return _save_runtime(replace(artefact, manifest=manifest), choice)


def select_named_runtime(
    artefact: Artefact,
    choice: RuntimeChoice,
    calibration_set: CalibrationSet | None = None,
    *,
    progress: Progress | None = None,
) -> Artefact:
    """Save one runtime in the manifest of the artefact, after it was verified there.

    The task's metric is measured in bf16 where there is a ``calibration_set``.

    Raises:
        Unavailable: the runtime does not run here, or not in this precision.
        VerificationFailed: it costs more of the task's metric than allowed.
        BadArtefact: it does not give the checkpoint's logits.
    """
    verified = _verified(artefact, choice, calibration_set, None, progress or Silent())
    return _save_runtime(verified, choice)


def fastest_runtime(timings: tuple[RuntimeTiming, ...]) -> str:
    """The fastest runtime over all shapes; the first unless another is clearly faster."""
    return timings[first_unless_faster([one.seconds for one in timings])].runtime


def _verified(
    artefact: Artefact,
    choice: RuntimeChoice,
    calibration_set: CalibrationSet | None,
    threads: int | None,
    progress: Progress,
) -> Artefact:
    """The artefact after it was verified in a runtime, with its score there where that rounds.

    Raises:
        VerificationFailed: it costs more of the task's metric than allowed.
    """
    with _session(artefact, choice, threads) as session:
        difference = prove(session, artefact)
        progress.note(f"{choice}: {difference:.1e} from the checkpoint's logits")
        if choice.precision is None or calibration_set is None:
            return artefact
        after = calibration_set.score(session)
    before = _fp32_scores(artefact, calibration_set, threads)
    if not calibration_set.allows(before, after):
        metric = calibration_set.metric
        raise VerificationFailed(
            f"{choice} costs more {metric} than allowed",
            got=f"{after.get(metric)}, in fp32 {before.get(metric)}",
            fix="use another runtime, or allow more with --max-drop",
        )
    scores = {**artefact.manifest.scores, "fp32": before, session.description.precision: after}
    return replace(artefact, manifest=replace(artefact.manifest, scores=scores))


def _fp32_scores(
    artefact: Artefact, calibration_set: CalibrationSet, threads: int | None
) -> Scores:
    """The scores in fp32: those in the manifest, where the export measured them."""
    measured = artefact.manifest.scores.get("fp32")
    if measured is not None:
        return measured
    with _session(artefact, RUNTIME_CHOICES["onnxruntime"], threads) as session:
        return calibration_set.score(session)


def _save_runtime(artefact: Artefact, choice: RuntimeChoice) -> Artefact:
    """The artefact, saved with a runtime in its manifest."""
    assert choice.runtime is not None  # noqa: S101 - the caller has resolved "auto"
    manifest = replace(artefact.manifest, runtime=choice.runtime, bf16=choice.precision == "bf16")
    save_manifest(artefact.folder, manifest)
    return replace(artefact, manifest=manifest)


@contextmanager
def _opened(artefact: Artefact, choice: RuntimeChoice, plan: TuningPlan) -> Iterator[Run]:
    """A function that runs the artefact once at a shape, on random token ids."""
    with _session(artefact, choice, plan.threads) as session:
        yield random_run(session, artefact.encoder.vocabulary, plan.shapes)


def _session(artefact: Artefact, choice: RuntimeChoice, threads: int | None) -> Session:
    """A session of the artefact in a runtime."""
    return session_from_artefact(
        artefact, runtime=choice.runtime, precision=choice.precision, threads=threads
    )
