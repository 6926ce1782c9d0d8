"""How many times as fast a structured model is as the dense one, measured in turns on this machine.

Both run as `spd export` writes them, in the same runtime and precision: `spd bench` compares an
artefact with the same dense graph, exported from the dense checkpoint.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from exporters.autotune.measure_latency import LatencyPlan
from exporters.autotune.networks import opened_network, write_networks
from exporters.autotune.select import choose_lowerings
from exporters.classifier_weights import ClassifierWeights, read_weights
from exporters.dense_baseline import dense_baseline_weights, dense_choices
from exporters.drawn_weights import drawn_weights
from exporters.lowering.choice import LoweringChoice
from spd_deploy.domain.artefact import Artefact, is_artefact, open_artefact
from spd_deploy.domain.checkpoint import open_checkpoint, read_config
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.measured_speedup import MeasuredSpeedup
from spd_deploy.domain.progress import Advance, Progress, Silent
from spd_deploy.domain.shapes import random_batch, refuse_too_long
from spd_deploy.sessions.onnxruntime import MODEL_FILE
from spd_deploy.sessions.open import session_from_artefact
from spd_deploy.timing.host_clock import Effort
from spd_deploy.timing.interleaved import Opener, Run, time_interleaved

# As long as an arm of `spd bench` is timed at one shape.
_EFFORT = Effort(seconds=5.0, rounds=6)
_DENSE, _SPARSE = "dense", "sparse"


def measure_speedup(
    folder: Path,
    plan: LatencyPlan,
    *,
    effort: Effort = _EFFORT,
    progress: Progress | None = None,
) -> MeasuredSpeedup:
    """Time the model in a folder, a sparse checkpoint or an artefact, in turns with the dense one.

    A checkpoint is lowered as an export without ``--tune`` does. An artefact runs as it is; its
    precision must be that of the plan. The dense model has the same sizes and drawn weights, since
    the time of a dense product does not depend on the numbers in it.

    Raises:
        BadSetting: a shape that is too long, or an artefact in another precision.
        SpdError: no checkpoint and no artefact, or a runtime that does not run here.
    """
    progress = progress or Silent()
    with tempfile.TemporaryDirectory(prefix="spd-speedup-") as scratch:
        openers = _openers(folder, plan, Path(scratch))
        with progress.stage("measure dense and sparse", 2 * effort.rounds) as advance:
            noted = {name: partial(_noted, opener, advance) for name, opener in openers.items()}
            found = time_interleaved(noted, plan.shapes, effort)
    return MeasuredSpeedup(
        shapes=plan.shapes,
        dense_rounds_s=found[_DENSE],
        sparse_rounds_s=found[_SPARSE],
        where=plan.where,
    )


def _openers(folder: Path, plan: LatencyPlan, scratch: Path) -> dict[str, Opener]:
    """What opens the dense and the sparse model."""
    if is_artefact(folder):
        artefact = open_artefact(folder)
        _refuse_other_precision(artefact, plan)
        refuse_too_long(plan.shapes, artefact.encoder.positions)
        dense = dense_baseline_weights(artefact)
        sparse: Opener = partial(_opened_artefact, artefact, plan)
    else:
        checkpoint = open_checkpoint(folder)
        refuse_too_long(plan.shapes, checkpoint.encoder.positions)
        weights = read_weights(checkpoint)
        tables = {name: array.shape for name, array in weights.tensors.items()}
        outputs = checkpoint.task.outputs
        dense = drawn_weights(weights.encoder, read_config(folder), outputs=outputs, tables=tables)
        choices = choose_lowerings(checkpoint, weights, precision=plan.stored)
        sparse = _written(scratch / _SPARSE, weights, choices, plan)
    return {_DENSE: _written(scratch / _DENSE, dense, dense_choices(dense), plan), _SPARSE: sparse}


def _written(
    folder: Path,
    weights: ClassifierWeights,
    choices: Mapping[str, LoweringChoice],
    plan: LatencyPlan,
) -> Opener:
    """Write a network into a new folder; returns what opens it."""
    folder.mkdir()
    file = folder / MODEL_FILE
    write_networks({file: choices}, weights, runtime=plan.runtime, precision=plan.stored)
    return partial(
        opened_network,
        file,
        weights.encoder,
        shapes=plan.shapes,
        runtime=plan.runtime,
        precision=plan.precision,
        threads=plan.threads,
    )


def _refuse_other_precision(artefact: Artefact, plan: LatencyPlan) -> None:
    """Refuse an artefact that was exported in another precision.

    Raises:
        BadSetting: it was.
    """
    if artefact.manifest.precision != plan.stored.value:
        raise BadSetting(
            f"{artefact.folder} was exported in another precision",
            got=f"{artefact.manifest.precision}, to be measured in {plan.stored}",
            fix=f"export the checkpoint with --precision {plan.stored}",
        )


@contextmanager
def _opened_artefact(artefact: Artefact, plan: LatencyPlan) -> Iterator[Run]:
    """A function that runs the artefact once at a shape, on random token ids."""
    generator = np.random.default_rng(0)
    vocabulary = artefact.encoder.vocabulary
    batches = {shape: random_batch(shape, vocabulary, generator) for shape in plan.shapes}
    with session_from_artefact(
        artefact, runtime=plan.runtime, precision=plan.computed, threads=plan.threads
    ) as session:
        yield lambda shape: session.run(batches[shape])


@contextmanager
def _noted(opener: Opener, advance: Advance) -> Iterator[Run]:
    """Open a network, and advance the progress after it was timed."""
    with opener() as run:
        yield run
    advance()
