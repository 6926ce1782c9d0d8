"""Times the ways of a checkpoint's products, then of the whole network, on this machine."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from exporters.classifier import ClassifierGraph
from exporters.lowering.choose import Choice, choose, in_way
from exporters.lowering.ways import Way, Ways, ways_of
from exporters.precisions import Precision, arithmetic_for
from exporters.storage import write_graphs
from exporters.tuning.product import RANGE, TARGETS, opened_product
from exporters.tuning.timing import Effort, Run, in_turns
from exporters.tuning.values import Product, ProductTimes, Times, Tuning
from exporters.weights import ClassifierWeights
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.measured import Shape, random_batch
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.runtimes import CpuRuntime
from spd_deploy.sessions.onnxruntime import OnnxSession
from spd_deploy.sessions.openvino import OpenVinoSession
from spd_deploy.sessions.protocol import Session


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
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
    plan: Plan,
    *,
    progress: Progress | None = None,
) -> Tuning:
    """Everything that :func:`choose` needs to choose by measurement.

    Raises:
        BadSetting: a shape with more tokens than the model has positions.
        Unavailable: no such runtime, or not in this precision.
    """
    progress = progress or Silent()
    _refuse_long(checkpoint, plan)
    ways = ways_of(checkpoint, weights)
    distinct = products_of(ways, last=checkpoint.encoder.layers - 1)
    products = []
    with progress.stage(f"time products in {plan.runtime}", len(distinct)) as advance:
        for product, known in distinct.items():
            products.append(
                ProductTimes(product=product, times=_time_product(product, known, plan))
            )
            advance(note=f"{product.shape[0]}x{product.shape[1]}")
    alone = Tuning(
        checkpoint_sha256=checkpoint.weights_sha256,
        precision=plan.precision,
        runtime=plan.runtime,
        machine=plan.machine,
        threads=plan.threads,
        shapes=plan.shapes,
        products=tuple(products),
        network=None,
    )
    if not products:
        progress.note("nothing to tune: each matrix can only be run dense")
        return alone
    with progress.stage(f"time networks in {plan.runtime}", 1) as advance:
        chosen = choose(checkpoint, weights, alone, precision=plan.precision, ways=ways)
        network = _time_network(weights, _networks(ways, chosen), plan)
        advance()
    return replace(alone, network=network)


def products_of(ways: Mapping[str, Ways], *, last: int) -> dict[Product, Ways]:
    """The distinct products that have more than one way to run, each with its first matrix."""
    found: dict[Product, Ways] = {}
    for known in ways.values():
        if known.timed:
            found.setdefault(Product.of(known, last=last), known)
    return found


def _networks(
    ways: Mapping[str, Ways], chosen: Mapping[str, Choice]
) -> dict[Way, Mapping[str, Choice]]:
    """The whole network all dense, without what is dead, and as its products alone would have it.

    The last two only where they differ from those before.
    """
    found: dict[Way, Mapping[str, Choice]] = {"dense": in_way(ways, "dense")}
    if any("compact" in known.lowerings for known in ways.values()):
        found["compact"] = in_way(ways, "compact")
    if any(choice.lowering.feature_major for choice in chosen.values()):
        found["gathered"] = chosen
    return found


def _time_product(product: Product, ways: Ways, plan: Plan) -> Times:
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
    return Times(seconds=in_turns(openers, plan.shapes, plan.effort))


def _time_network(
    weights: ClassifierWeights, networks: Mapping[Way, Mapping[str, Choice]], plan: Plan
) -> Times:
    """Whole networks, from a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="spd-tune-") as scratch:
        folder = Path(scratch)
        files: dict[Way, str] = {way: f"{way}.onnx" for way in networks}
        target = TARGETS[plan.runtime]
        ranges = dict.fromkeys((m.name for m in weights.encoder.matrices()), RANGE)
        arithmetic = arithmetic_for(plan.precision, target, ranges)
        graphs = {
            files[way]: ClassifierGraph(weights, networks[way], target, arithmetic)
            for way in networks
        }
        write_graphs(folder, graphs)
        del graphs
        openers = {
            way: partial(_opened_network, folder / file, weights.encoder, plan)
            for way, file in files.items()
        }
        return Times(seconds=in_turns(openers, plan.shapes, plan.effort))


@contextmanager
def _opened_network(model: Path, encoder: Encoder, plan: Plan) -> Iterator[Run]:
    """A network in its session, with random token ids for each shape."""
    draw = np.random.default_rng(0)
    batches = {shape: random_batch(shape, encoder.vocabulary, draw) for shape in plan.shapes}
    with _session(model, encoder, plan) as session:
        yield lambda shape: session.run(batches[shape])


def _session(model: Path, encoder: Encoder, plan: Plan) -> Session:
    """A network's graph in the runtime of the plan."""
    precision, threads = plan.precision.value, plan.threads
    if plan.runtime == "openvino":
        positions = encoder.positions
        return OpenVinoSession(model, precision=precision, positions=positions, threads=threads)
    return OnnxSession(model, precision=precision, threads=threads)


def _refuse_long(checkpoint: Checkpoint, plan: Plan) -> None:
    """A network cannot be timed at more tokens than it has positions."""
    longest, most = max(shape.seq for shape in plan.shapes), checkpoint.encoder.positions
    if longest > most:
        raise BadSetting(
            f"the model has positions for {most} tokens",
            got=f"sequences of {longest}",
            fix=f"tune with --seq {most} or less",
        )
