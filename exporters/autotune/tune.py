"""Times the lowerings of a checkpoint's products, then of its whole network, on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from exporters.autotune.networks import opened_network, write_networks
from exporters.autotune.product_model import opened_product
from exporters.autotune.select import choose_lowerings, with_lowering
from exporters.autotune.tuning import ProductTimes, TimedProduct, Times, Tuning
from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.candidates import Candidates, candidates_of
from exporters.lowering.choice import LoweringChoice
from exporters.precision import Precision
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadSetting, Unavailable
from spd_deploy.domain.lowering_names import LoweringName
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.domain.scratch import scratch_folder
from spd_deploy.domain.shapes import Shape, refuse_too_long
from spd_deploy.timing.host_clock import TimingSettings
from spd_deploy.timing.interleaved import Opener, time_interleaved

# The choices of whole networks, by the lowering that they stand for.
Networks = Mapping[LoweringName, Mapping[str, LoweringChoice]]


@dataclass(frozen=True, kw_only=True, slots=True)
class TuningPlan:
    """The plan of a tuning.

    Attributes:
        shapes: the shapes of the batches that the network is timed at.
        threads: threads of the runtime.
        machine: the name of this machine in the tuning.
        timing: how long each product and network is timed.
    """

    shapes: tuple[Shape, ...]
    threads: int
    machine: str
    precision: Precision = Precision.FP32
    runtime: CpuRuntime = "onnxruntime"
    timing: TimingSettings = field(default_factory=TimingSettings)

    def __post_init__(self) -> None:
        """There is at least one shape, and one thread."""
        if not self.shapes or self.threads < 1:
            raise BadSetting(
                "a tuning needs shapes and threads", got=self, fix="name --batch, --seq, --threads"
            )


def tune(
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    plans: Sequence[TuningPlan],
    *,
    progress: Progress | None = None,
) -> list[Tuning]:
    """Measure what :func:`choose_lowerings` chooses by, once for each plan's runtime.

    The plans differ in the runtime alone. Products are timed one runtime after another. Whole
    networks of all runtimes are timed in the same rounds, so that their times can be compared. The
    first runtime must be available; another that is not is reported and left out.

    Raises:
        BadSetting: a shape with more tokens than the model has positions.
        Unavailable: the first runtime is not installed, or does not run this precision.
    """
    progress = progress or Silent()
    refuse_too_long(plans[0].shapes, checkpoint.encoder.positions)
    candidates = candidates_of(checkpoint, weights)
    products = distinct_products(candidates, last=checkpoint.encoder.layers - 1)
    if not products:
        progress.note("nothing to tune: each matrix has one lowering only")
        return [_tuning(checkpoint, plans[0], ())]
    with scratch_folder("tune") as scratch:
        drafts: list[_DraftTuning] = []
        for plan in plans:
            try:
                tuning = _tuning(checkpoint, plan, _time_products(products, plan, progress))
                networks = _networks(checkpoint, weights, candidates, tuning)
                files = _write_networks(scratch, weights, networks, plan)
                draft = _DraftTuning(plan=plan, tuning=tuning, encoder=weights.encoder, files=files)
                draft.refuse_unavailable()
                drafts.append(draft)
            except Unavailable as err:
                if plan is plans[0]:
                    raise
                progress.note(f"not tuned in {plan.runtime}: {err}")
        with progress.stage("time networks", 1) as advance:
            tunings = _time_networks(drafts)
            advance()
    return tunings


@dataclass(frozen=True, kw_only=True, slots=True)
class _DraftTuning:
    """A tuning whose products are timed, and whose networks are written but not timed yet."""

    plan: TuningPlan
    tuning: Tuning
    encoder: Encoder
    files: Mapping[LoweringName, Path]

    def opener(self, lowering: LoweringName) -> Opener:
        """A function that opens one of the networks."""
        return partial(
            opened_network,
            self.files[lowering],
            self.encoder,
            shapes=self.plan.shapes,
            runtime=self.plan.runtime,
            precision=self.plan.precision.value,
            threads=self.plan.threads,
        )

    def refuse_unavailable(self) -> None:
        """Open a network once, since a runtime may run a product and not a network.

        Raises:
            Unavailable: the runtime does not run the network here, or not in this precision.
        """
        with self.opener("dense")():
            pass

    def times_in(self, seconds: Mapping[str, tuple[tuple[float, ...], ...]]) -> Times:
        """The times of this runtime's networks, out of those of all runtimes."""
        return Times(seconds={name: seconds[self.label(name)] for name in self.files})

    def label(self, lowering: LoweringName) -> str:
        """The name of a network among those of all runtimes."""
        return f"{lowering} in {self.plan.runtime}"


def _tuning(checkpoint: Checkpoint, plan: TuningPlan, products: tuple[ProductTimes, ...]) -> Tuning:
    """The tuning before whole networks are timed."""
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


def distinct_products(
    candidates: Mapping[str, Candidates], *, last: int
) -> dict[TimedProduct, Candidates]:
    """The products that have several lowerings, each with the first matrix that is one of them."""
    products: dict[TimedProduct, Candidates] = {}
    for one in candidates.values():
        if one.worth_timing:
            products.setdefault(TimedProduct.of(one, last=last), one)
    return products


def _networks(
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    candidates: Mapping[str, Candidates],
    tuning: Tuning,
) -> Networks:
    """The networks to time: all dense, all compact, and gathered where the products' times say so.

    The last two are left out where they do not differ from those before.
    """
    networks: dict[LoweringName, Mapping[str, LoweringChoice]] = {
        "dense": with_lowering(candidates, "dense")
    }
    if any("compact" in one.lowerings for one in candidates.values()):
        networks["compact"] = with_lowering(candidates, "compact")
    choices = choose_lowerings(
        checkpoint, weights, tuning, precision=tuning.precision, candidates=candidates
    )
    if any(choice.lowering.feature_major for choice in choices.values()):
        networks["gathered"] = choices
    return networks


def _time_products(
    products: Mapping[TimedProduct, Candidates], plan: TuningPlan, progress: Progress
) -> tuple[ProductTimes, ...]:
    """The times of each product in each of its lowerings."""
    timed = []
    with progress.stage(f"time products in {plan.runtime}", len(products)) as advance:
        for product, candidates in products.items():
            times = _time_product(product, candidates, plan)
            timed.append(ProductTimes(product=product, times=times))
            advance(note=f"{product.shape[0]}x{product.shape[1]}")
    return tuple(timed)


def _time_product(product: TimedProduct, candidates: Candidates, plan: TuningPlan) -> Times:
    """The times of one product in each of its lowerings, which take turns."""
    openers = {
        name: partial(
            opened_product,
            lowering,
            threads=plan.threads,
            precision=plan.precision,
            runtime=plan.runtime,
            shape_at=product.shape_at,
        )
        for name, lowering in candidates.lowerings.items()
    }
    return Times(seconds=time_interleaved(openers, plan.shapes, plan.timing))


def _write_networks(
    scratch: Path, weights: ClassifierWeights, networks: Networks, plan: TuningPlan
) -> dict[LoweringName, Path]:
    """Write each network for the plan's runtime, over one file of weights."""
    folder = scratch / plan.runtime
    folder.mkdir()
    files = {name: folder / f"{name}.onnx" for name in networks}
    write_networks(
        {files[name]: choices for name, choices in networks.items()},
        weights,
        runtime=plan.runtime,
        precision=plan.precision,
    )
    return files


def _time_networks(drafts: Sequence[_DraftTuning]) -> list[Tuning]:
    """The tunings with the times of their networks, of all runtimes in the same rounds."""
    openers = {draft.label(name): draft.opener(name) for draft in drafts for name in draft.files}
    plan = drafts[0].plan
    seconds = time_interleaved(openers, plan.shapes, plan.timing)
    return [replace(draft.tuning, network=draft.times_in(seconds)) for draft in drafts]
