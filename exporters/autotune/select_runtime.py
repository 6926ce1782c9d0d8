"""Which runtime an artefact is served in: the fastest on this machine that keeps the accuracy.

A candidate must run here and give the checkpoint's logits on the golden inputs; bf16, which rounds
what the export was held to, must be judged by the task's own metric as well. Those that remain take
turns, one session at a time. Who is left out is told, with the reason.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np

from exporters.autotune.tune import TuningPlan
from exporters.precision import CalibrationSet, Scores
from spd_deploy.domain.artefact import Artefact, RuntimeTiming, save_manifest
from spd_deploy.domain.errors import SpdError, VerificationFailed
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES, RuntimeChoice
from spd_deploy.domain.shapes import random_batch
from spd_deploy.sessions.open import prove, session_from_artefact
from spd_deploy.sessions.protocol import Session
from spd_deploy.timing.interleaved import Run, fastest, time_interleaved

_CANDIDATES = ("onnxruntime", "openvino", "openvino:bf16")


def in_fastest_runtime(
    artefact: Artefact,
    plan: TuningPlan,
    trial: CalibrationSet | None,
    *,
    progress: Progress | None = None,
) -> Artefact:
    """The artefact with the fastest runtime in its manifest, and the times of all candidates."""
    progress = progress or Silent()
    candidates = []
    for name in _CANDIDATES:
        try:
            if RUNTIME_CHOICES[name].precision is not None and trial is None:
                raise VerificationFailed(
                    "it rounds, and there are no labels to judge it by",
                    fix="name the task's data: --data DIR",
                )
            artefact = _judged(artefact, RUNTIME_CHOICES[name], trial, plan.threads, progress)
            candidates.append(name)
        except SpdError as err:
            progress.note(f"{name} is left out: {err}")
    with progress.stage("time runtimes", 1) as advance:
        openers = {
            name: partial(_opened, artefact, RUNTIME_CHOICES[name], plan) for name in candidates
        }
        times = time_interleaved(openers, plan.shapes, plan.effort)
        advance()
    ran = tuple(
        RuntimeTiming(runtime=name, seconds=tuple(median(rounds) for rounds in of_shape))
        for name, of_shape in times.items()
    )
    at = tuple(map(str, plan.shapes))
    manifest = replace(artefact.manifest, ran=ran, ran_at=at)
    return _named(replace(artefact, manifest=manifest), RUNTIME_CHOICES[fastest_runtime(ran)])


def in_runtime(
    artefact: Artefact,
    asked: RuntimeChoice,
    trial: CalibrationSet | None = None,
    *,
    progress: Progress | None = None,
) -> Artefact:
    """The artefact with the runtime that was asked for in its manifest.

    bf16 is judged where there is a ``trial``, and otherwise the word of who asked for it.

    Raises:
        Unavailable: it does not run here, or not in this precision.
        VerificationFailed: it costs more of the task's metric than allowed.
        BadArtefact: it does not give the checkpoint's logits there.
    """
    return _named(_judged(artefact, asked, trial, None, progress or Silent()), asked)


def fastest_runtime(ran: tuple[RuntimeTiming, ...]) -> str:
    """The runtime that is the quickest over the shapes; the first unless another clearly is."""
    return ran[fastest([one.seconds for one in ran])].runtime


def _judged(
    artefact: Artefact,
    asked: RuntimeChoice,
    trial: CalibrationSet | None,
    threads: int | None,
    progress: Progress,
) -> Artefact:
    """The artefact, with its score in a runtime where that rounds; an error where it may not be."""
    with _session(artefact, asked, threads) as session:
        off = prove(session, artefact)
        progress.note(f"{asked}: {off:.1e} from the checkpoint's logits")
        if asked.precision is None or trial is None:
            return artefact
        after = trial.score(session)
    before = _before(artefact, trial, threads)
    if not trial.allows(before, after):
        raise VerificationFailed(
            f"{asked} costs more {trial.metric} than allowed",
            got=f"{after.get(trial.metric)} after {before.get(trial.metric)}",
            fix="use another runtime, or allow more with --max-drop",
        )
    scores = {**artefact.manifest.scores, "fp32": before, session.description.precision: after}
    return replace(artefact, manifest=replace(artefact.manifest, scores=scores))


def _before(artefact: Artefact, trial: CalibrationSet, threads: int | None) -> Scores:
    """The score in fp32; an int8 artefact knows it from its export."""
    known = artefact.manifest.scores.get("fp32")
    if known is not None:
        return known
    with _session(artefact, RUNTIME_CHOICES["onnxruntime"], threads) as session:
        return trial.score(session)


def _named(artefact: Artefact, asked: RuntimeChoice) -> Artefact:
    """The artefact saved with a runtime."""
    assert asked.runtime is not None  # noqa: S101 - "auto" is for the caller to settle
    manifest = replace(artefact.manifest, runtime=asked.runtime, bf16=asked.precision == "bf16")
    save_manifest(artefact.folder, manifest)
    return replace(artefact, manifest=manifest)


@contextmanager
def _opened(artefact: Artefact, asked: RuntimeChoice, plan: TuningPlan) -> Iterator[Run]:
    """The artefact in a runtime, with random token ids for each shape."""
    draw = np.random.default_rng(0)
    vocabulary = artefact.encoder.vocabulary
    batches = {shape: random_batch(shape, vocabulary, draw) for shape in plan.shapes}
    with _session(artefact, asked, plan.threads) as session:
        yield lambda shape: session.run(batches[shape])


def _session(artefact: Artefact, asked: RuntimeChoice, threads: int | None) -> Session:
    """The artefact in a runtime."""
    return session_from_artefact(
        artefact, runtime=asked.runtime, precision=asked.precision, threads=threads
    )
