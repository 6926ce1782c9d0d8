"""How many times as fast a structured model is as the dense one, measured in turns on this machine.

Both run as `spd export` writes them, in the same runtime and precision: `spd bench` compares an
artefact with the same dense graph, exported from the dense checkpoint.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

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
from spd_deploy.domain.errors import BadReport, BadSetting
from spd_deploy.domain.progress import Advance, Progress, Silent
from spd_deploy.domain.scratch import scratch_folder
from spd_deploy.domain.shapes import Shape, mean_gain, random_batch
from spd_deploy.sessions.onnxruntime import MODEL_FILE
from spd_deploy.sessions.open import session_from_artefact
from spd_deploy.timing.host_clock import Effort
from spd_deploy.timing.interleaved import Opener, Run, time_interleaved

# As long as an arm of `spd bench` is timed at one shape.
_EFFORT = Effort(seconds=5.0, rounds=6)
_DENSE, _SPARSE = "dense", "sparse"


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredSpeedup:
    """Seconds of a dense and of a sparse model: for each shape, one median a round."""

    shapes: tuple[Shape, ...]
    dense_s: tuple[tuple[float, ...], ...]
    sparse_s: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        """Both have as many rounds at every shape."""
        counts = [[len(r) for r in rounds] for rounds in (self.dense_s, self.sparse_s)]
        if counts[0] != counts[1] or len(counts[0]) != len(self.shapes) or not all(counts[0]):
            raise BadReport("a speed-up with rounds missing", got=counts, fix="measure again")

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times as fast the sparse model is at each shape, by the medians of rounds."""
        pairs = zip(self.dense_s, self.sparse_s, strict=True)
        return tuple(median(dense) / median(sparse) for dense, sparse in pairs)

    @property
    def ratio(self) -> float:
        """The geometric mean over the shapes, as in a latency table."""
        return mean_gain(self.ratios)


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
    with scratch_folder("speedup") as scratch:
        openers = _openers(folder, plan, scratch)
        with progress.stage("measure dense and sparse", 2 * effort.rounds) as advance:
            told = {name: partial(_told, opener, advance) for name, opener in openers.items()}
            found = time_interleaved(told, plan.shapes, effort)
    return MeasuredSpeedup(shapes=plan.shapes, dense_s=found[_DENSE], sparse_s=found[_SPARSE])


def _openers(folder: Path, plan: LatencyPlan, scratch: Path) -> dict[str, Opener]:
    """What opens the dense and the sparse model."""
    if is_artefact(folder):
        artefact = open_artefact(folder)
        _refuse_other_precision(artefact, plan)
        plan.refuse_long(artefact.encoder.positions)
        dense = dense_baseline_weights(artefact)
        sparse: Opener = partial(_opened_artefact, artefact, plan)
    else:
        checkpoint = open_checkpoint(folder)
        plan.refuse_long(checkpoint.encoder.positions)
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
def _told(opener: Opener, advance: Advance) -> Iterator[Run]:
    """Open a network, and tell when it was timed."""
    with opener() as run:
        yield run
    advance()
