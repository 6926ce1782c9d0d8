"""Which runtime an artefact is served in: the fastest on this machine that keeps the accuracy.

The candidates take turns, one session at a time. OpenVINO in bf16 rounds what the export was held
to, so it is a candidate only where the task's own metric can judge it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np

from exporters.precisions import Scores, Trial
from exporters.tuning.timing import Run, in_turns
from exporters.tuning.tune import Plan
from spd_deploy.domain.artefact import Artefact, Ran, open_artefact, save_manifest
from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.measured import mean_gain, random_batch
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.runtimes import ASKED, Asked
from spd_deploy.sessions.opening import session_from_artefact
from spd_deploy.sessions.protocol import Session

_CANDIDATES = ("onnxruntime", "openvino", "openvino:bf16")


def in_fastest_runtime(
    artefact: Artefact,
    plan: Plan,
    trial: Trial | None,
    *,
    progress: Progress | None = None,
) -> Artefact:
    """The artefact with the fastest runtime in its manifest, and the times of all candidates."""
    progress = progress or Silent()
    candidates = _that_run(artefact, plan, trial)
    with progress.stage("time runtimes", 1) as advance:
        openers = {name: partial(_opened, artefact, ASKED[name], plan) for name in candidates}
        times = in_turns(openers, plan.shapes, plan.effort)
        advance()
    ran = tuple(
        Ran(runtime=name, seconds=tuple(median(rounds) for rounds in of_shape))
        for name, of_shape in times.items()
    )
    artefact = replace(
        artefact,
        manifest=replace(artefact.manifest, ran=ran, ran_at=tuple(map(str, plan.shapes))),
    )
    return in_runtime(artefact, ASKED[fastest(ran)])


def in_runtime(artefact: Artefact, asked: Asked) -> Artefact:
    """The artefact with the runtime that was asked for in its manifest."""
    assert asked.runtime is not None  # noqa: S101 - "auto" is for the caller to settle
    manifest = replace(artefact.manifest, runtime=asked.runtime, bf16=asked.precision == "bf16")
    save_manifest(artefact.folder, manifest)
    return open_artefact(artefact.folder)


def fastest(ran: tuple[Ran, ...]) -> str:
    """The runtime of the smallest geometric mean over the shapes; of equal ones the first."""
    return min(ran, key=lambda one: mean_gain(one.seconds)).runtime


def _that_run(artefact: Artefact, plan: Plan, trial: Trial | None) -> list[str]:
    """The candidates that this machine has and whose accuracy is allowed."""
    found: list[str] = []
    before: Scores = artefact.manifest.scores.get("fp32", {})
    for name in _CANDIDATES:
        asked = ASKED[name]
        if asked.precision is not None and trial is None:
            continue
        try:
            with _session(artefact, asked, plan) as session:
                scores = {} if trial is None else trial.score(session)
        except Unavailable:
            continue
        before = before or scores
        if trial is None or trial.allows(before, scores):
            found.append(name)
    return found


@contextmanager
def _opened(artefact: Artefact, asked: Asked, plan: Plan) -> Iterator[Run]:
    """The artefact in a runtime, with random token ids for each shape."""
    draw = np.random.default_rng(0)
    vocabulary = artefact.encoder.vocabulary
    batches = {shape: random_batch(shape, vocabulary, draw) for shape in plan.shapes}
    with _session(artefact, asked, plan) as session:
        yield lambda shape: session.run(batches[shape])


def _session(artefact: Artefact, asked: Asked, plan: Plan) -> Session:
    """The artefact in a runtime, with the plan's threads."""
    return session_from_artefact(
        artefact, runtime=asked.runtime, precision=asked.precision, threads=plan.threads
    )
