"""Times the ways of a checkpoint's products, then of the whole network, on this machine."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from exporters.autotune.product_model import RANGE, TARGETS, opened_product
from exporters.autotune.select import Choice, choose, in_way
from exporters.autotune.tuning import ProductTimes, TimedProduct, Times, Tuning
from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.candidates import Candidates, LoweringName, candidates_of
from exporters.onnx.classifier_graph import ClassifierGraph
from exporters.onnx.storage import write_graphs
from exporters.precision import Precision, arithmetic_for
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadSetting, Unavailable
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.domain.shapes import Shape, random_batch
from spd_deploy.sessions.onnxruntime import OnnxSession
from spd_deploy.sessions.openvino import OpenVinoSession
from spd_deploy.sessions.protocol import Session
from spd_deploy.timing.host_clock import Effort
from spd_deploy.timing.interleaved import Opener, Run, time_interleaved

# The choices of whole networks, by the way they are run in.
Networks = Mapping[LoweringName, Mapping[str, Choice]]


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningPlan:
    """At which shapes to tune, in which precision and runtime, and how.

    Attributes:
        machine: what the tuning calls the machine it is measured on.
    """

    shapes: tuple[Shape, ...]
    threads: int
    machine: str
    precision: Precision = Precision.FP32
    runtime: CpuRuntime = "onnxruntime"
    effort: Effort = field(default_factory=Effort)

    def __post_init__(self) -> None:
        """At least one shape and thread."""
        if not self.shapes or self.threads < 1:
            raise BadSetting("a tuning without shapes or threads", got=self, fix="name some")


def tune(
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    plans: Sequence[TuningPlan],
    *,
    progress: Progress | None = None,
) -> list[Tuning]:
    """Everything that :func:`choose` needs to choose by measurement, for each plan's runtime.

    The plans differ in the runtime alone. Products are timed one runtime after another; whole
    networks take turns in all of them, so that their times can be compared. The first runtime must
    be there; another that is not is told of, and left out.

    Raises:
        BadSetting: a shape with more tokens than the model has positions.
        Unavailable: no such runtime, or not in this precision.
    """
    progress = progress or Silent()
    _refuse_long(checkpoint, plans[0])
    ways = candidates_of(checkpoint, weights)
    distinct = products_of(ways, last=checkpoint.encoder.layers - 1)
    if not distinct:
        progress.note("nothing to tune: each matrix can only be run dense")
        return [_tuning(checkpoint, plans[0], ())]
    with tempfile.TemporaryDirectory(prefix="spd-tune-") as scratch:
        begun: list[_Begun] = []
        for plan in plans:
            try:
                products = _time_products(distinct, plan, progress)
                alone = _tuning(checkpoint, plan, products)
                chosen = choose(checkpoint, weights, alone, precision=plan.precision, ways=ways)
                files = _write_networks(Path(scratch), weights, _networks(ways, chosen), plan)
                one = _Begun(plan=plan, alone=alone, encoder=weights.encoder, files=files)
                one.refuse_unavailable()
                begun.append(one)
            except Unavailable as err:
                if plan is plans[0]:  # asked for, or what every export needs
                    raise
                progress.note(f"not tuned in {plan.runtime}: {err}")
        with progress.stage("time networks", 1) as advance:
            found = _time_networks(begun)
            advance()
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class _Begun:
    """A runtime's products are timed, and the networks that are to be timed are written."""

    plan: TuningPlan
    alone: Tuning
    encoder: Encoder
    files: Mapping[LoweringName, Path]

    def opener(self, way: LoweringName) -> Opener:
        """Opens a network."""
        return partial(_opened_network, self.files[way], self.encoder, self.plan)

    def refuse_unavailable(self) -> None:
        """A runtime may take a product and no network: it is asked before networks take turns.

        Raises:
            Unavailable: it does not run here, or not so.
        """
        with self.opener("dense")():
            pass


def _tuning(checkpoint: Checkpoint, plan: TuningPlan, products: tuple[ProductTimes, ...]) -> Tuning:
    """What is known before whole networks are timed."""
    return Tuning(
        checkpoint_sha256=checkpoint.weights_sha256,
        precision=plan.precision,
        runtime=plan.runtime,
        machine=plan.machine,
        threads=plan.threads,
        shapes=plan.shapes,
        products=products,
        network=None,
    )


def products_of(ways: Mapping[str, Candidates], *, last: int) -> dict[TimedProduct, Candidates]:
    """The distinct products that have more than one way to run, each with its first matrix."""
    found: dict[TimedProduct, Candidates] = {}
    for known in ways.values():
        if known.timed:
            found.setdefault(TimedProduct.of(known, last=last), known)
    return found


def _networks(ways: Mapping[str, Candidates], chosen: Mapping[str, Choice]) -> Networks:
    """The whole network all dense, without what is dead, and as its products alone would have it.

    The last two only where they differ from those before.
    """
    found: dict[LoweringName, Mapping[str, Choice]] = {"dense": in_way(ways, "dense")}
    if any("compact" in known.lowerings for known in ways.values()):
        found["compact"] = in_way(ways, "compact")
    if any(choice.lowering.feature_major for choice in chosen.values()):
        found["gathered"] = chosen
    return found


def _time_products(
    distinct: Mapping[TimedProduct, Candidates], plan: TuningPlan, progress: Progress
) -> tuple[ProductTimes, ...]:
    """Each product in each of its ways."""
    found = []
    with progress.stage(f"time products in {plan.runtime}", len(distinct)) as advance:
        for product, known in distinct.items():
            found.append(ProductTimes(product=product, times=_time_product(product, known, plan)))
            advance(note=f"{product.shape[0]}x{product.shape[1]}")
    return tuple(found)


def _time_product(product: TimedProduct, ways: Candidates, plan: TuningPlan) -> Times:
    """One product in each of its ways."""
    openers = {
        way: partial(
            opened_product,
            lowering,
            threads=plan.threads,
            precision=plan.precision,
            runtime=plan.runtime,
            shape_at=product.shape_at,
        )
        for way, lowering in ways.lowerings.items()
    }
    return Times(seconds=time_interleaved(openers, plan.shapes, plan.effort))


def _write_networks(
    scratch: Path, weights: ClassifierWeights, networks: Networks, plan: TuningPlan
) -> dict[LoweringName, Path]:
    """Each network as the plan's runtime reads it, over one file of weights."""
    folder = scratch / plan.runtime
    folder.mkdir()
    files = {way: folder / f"{way}.onnx" for way in networks}
    target = TARGETS[plan.runtime]
    ranges = dict.fromkeys((m.name for m in weights.encoder.matrices()), RANGE)
    arithmetic = arithmetic_for(plan.precision, target, ranges)
    graphs = {
        files[way].name: ClassifierGraph(weights, choices, target, arithmetic)
        for way, choices in networks.items()
    }
    write_graphs(folder, graphs)
    return files


def _time_networks(begun: Sequence[_Begun]) -> list[Tuning]:
    """Whole networks in their runtimes, all in the same rounds."""
    openers = {
        f"{way} in {one.plan.runtime}": one.opener(way) for one in begun for way in one.files
    }
    found = time_interleaved(openers, begun[0].plan.shapes, begun[0].plan.effort)
    return [
        replace(
            one.alone,
            network=Times(
                seconds={way: found[f"{way} in {one.plan.runtime}"] for way in one.files}
            ),
        )
        for one in begun
    ]


@contextmanager
def _opened_network(model: Path, encoder: Encoder, plan: TuningPlan) -> Iterator[Run]:
    """A network in its session, with random token ids for each shape."""
    draw = np.random.default_rng(0)
    batches = {shape: random_batch(shape, encoder.vocabulary, draw) for shape in plan.shapes}
    with _session(model, encoder, plan) as session:
        yield lambda shape: session.run(batches[shape])


def _session(model: Path, encoder: Encoder, plan: TuningPlan) -> Session:
    """A network's graph in the runtime of the plan."""
    precision, threads = plan.precision.value, plan.threads
    if plan.runtime == "openvino":
        positions = encoder.positions
        return OpenVinoSession(model, precision=precision, positions=positions, threads=threads)
    return OnnxSession(model, precision=precision, threads=threads)


def _refuse_long(checkpoint: Checkpoint, plan: TuningPlan) -> None:
    """A network cannot be timed at more tokens than it has positions."""
    longest, most = max(shape.seq for shape in plan.shapes), checkpoint.encoder.positions
    if longest > most:
        raise BadSetting(
            f"the model has positions for {most} tokens",
            got=f"sequences of {longest}",
            fix=f"tune with --seq {most} or less",
        )
