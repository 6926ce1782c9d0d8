"""Which lowering each matrix gets, and why: a pure function of its pattern, weights and times.

What remains of a matrix is gathered where it has blocks and gathering is faster; otherwise it is
multiplied dense. A :class:`Tuning` holds times that were measured on a machine; without one, the
cost model estimates them. Rules:

- An artefact has one graph for all shapes. The geometric mean of the gains at the tuned shapes
  decides.
- One gathered matrix makes the whole network feature-major. A tuning has timed that network too,
  and where it is slower than the dense one, nothing is gathered. The cost model knows single
  products only.
- Heads and neurons that are all zero are removed whatever the times are: the file and the
  activations between coupled matrices are smaller without them.

Each choice has a reason, which ``spd inspect`` shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from exporters.autotune.tuning import TimedProduct, Times, Tuning
from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.candidates import Candidates, candidates_of
from exporters.lowering.choice import LoweringChoice
from exporters.precision import Precision
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.lowering_names import LoweringName
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.domain.shapes import Shape

# The gain over dense that the cost model must estimate before a matrix is gathered without timing.
MIN_GAIN = 1.1

NOT_PRUNED = "dense: this matrix was not pruned"
DENSE_WEIGHTS = "dense: the checkpoint is not sparse"
NOTHING_REMAINS = "no weights remain to multiply"


def choose_lowerings(
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    tuning: Tuning | None = None,
    precision: Precision = Precision.FP32,
    *,
    candidates: Mapping[str, Candidates] | None = None,
) -> dict[str, LoweringChoice]:
    """A choice for every prunable matrix, by its name.

    Args:
        checkpoint: the model whose matrices are lowered.
        weights: its tensors.
        tuning: the times to choose by; None lets the cost model estimate them.
        precision: the precision of the products.
        candidates: those of the checkpoint, where the caller has them already.

    Raises:
        BadReport: the tuning is of another checkpoint, in another precision, or lacks a product or
            one of its lowerings.
    """
    candidates = candidates or candidates_of(checkpoint, weights)
    sparse = checkpoint.pattern is not None
    if tuning is None:
        return {
            name: _choose_by_cost_model(one, precision, sparse=sparse)
            for name, one in candidates.items()
        }
    tuning.refuse_other(checkpoint.weights_sha256)
    tuning.refuse_precision(precision)
    last = checkpoint.encoder.layers - 1
    choices = {
        name: _choose_by_times(one, tuning, last=last, sparse=sparse)
        for name, one in candidates.items()
    }
    compact = any("compact" in one.lowerings for one in candidates.values())
    if tuning.network is not None and compact:
        tuning.network.refuse_lacking(["compact"], subject="the whole network")
    return choices


def force_lowering(
    checkpoint: Checkpoint, weights: ClassifierWeights, lowering: LoweringName
) -> dict[str, LoweringChoice]:
    """One lowering for every matrix, whether it is faster or not.

    A matrix that cannot have it gets its best lowering that does not gather, and a reason that says
    what it lacks.

    Raises:
        BadSetting: no matrix can have this lowering.
    """
    candidates = candidates_of(checkpoint, weights)
    if not any(lowering in one.lowerings for one in candidates.values()):
        possible = sorted({name for one in candidates.values() for name in one.lowerings})
        raise BadSetting(
            f"no matrix of {checkpoint.folder} can be lowered as {lowering}",
            got=f"{checkpoint.pattern or 'dense'} weights, which can be {', '.join(possible)}",
            fix="leave --lowering out; gathered needs a block pattern, compact needs heads or "
            "neurons that are all zero",
        )
    return {
        name: one.choose(lowering, f"{lowering} was forced with --lowering")
        if lowering in one.lowerings
        else one.choose(
            one.ungathered, f"{lowering} was forced with --lowering, but {_missing(one, lowering)}"
        )
        for name, one in candidates.items()
    }


def _missing(candidates: Candidates, lowering: LoweringName) -> str:
    """Why a matrix cannot have a lowering."""
    match lowering:
        case "dense":
            raise AssertionError("every matrix can be multiplied dense")
        case "compact":
            return "no heads or neurons of this matrix are all zero"
        case "gathered":
            return _why_not_gathered(candidates.pattern)
        case never:
            assert_never(never)


def _why_not_gathered(pattern: Pattern | None) -> str:
    """Why nothing of a matrix can be gathered."""
    match pattern:
        case Block():
            return NOTHING_REMAINS
        case None | Unstructured() | NM() | Structured():
            return "this matrix has no blocks"
        case never:
            assert_never(never)


def with_lowering(
    candidates: Mapping[str, Candidates], lowering: LoweringName
) -> dict[str, LoweringChoice]:
    """One lowering for every matrix that can have it, for timing whole networks."""
    return {
        name: LoweringChoice(
            lowering=one.lowerings[lowering if lowering in one.lowerings else one.ungathered],
            reason=f"all matrices {lowering}",
        )
        for name, one in candidates.items()
    }


def _choose_by_cost_model(
    candidates: Candidates, precision: Precision, *, sparse: bool
) -> LoweringChoice:
    """Gathered where the cost model estimates a gain of ``MIN_GAIN`` at least."""
    if "gathered" not in candidates.lowerings:
        return _choose_ungathered(candidates, sparse=sparse)
    ungathered = candidates.ungathered
    gathered_cost = candidates.lowerings["gathered"].cost.seconds(precision)
    gain = candidates.lowerings[ungathered].cost.seconds(precision) / gathered_cost
    if gain >= MIN_GAIN:
        return candidates.choose(
            "gathered",
            f"{candidates.kept_inputs}; the cost model estimates {gain:.1f}x the {ungathered} "
            "speed",
        )
    return candidates.choose(
        ungathered,
        f"{ungathered}: the cost model estimates {gain:.1f}x the {ungathered} speed for gathered; "
        f"with blocks of {candidates.group_rows} rows, copying the kept inputs takes longer than "
        "it saves" + (f" in {precision}" if precision is not Precision.FP32 else ""),
    )


def _choose_by_times(
    candidates: Candidates, tuning: Tuning, *, last: int, sparse: bool
) -> LoweringChoice:
    """Gathered where both the product and the whole network were measured to be faster."""
    if not candidates.worth_timing:
        return _choose_ungathered(candidates, sparse=sparse)
    times = tuning.times_of(TimedProduct.of(candidates, last=last))
    times.refuse_lacking(candidates.lowerings, subject=candidates.matrix.name)
    if "gathered" not in candidates.lowerings:
        choice = _choose_ungathered(candidates, sparse=sparse)
        return _timed(choice, times, candidates.ungathered, tuning)
    lowering, reason = _compare(candidates, times, tuning)
    return _timed(candidates.choose(lowering, reason), times, lowering, tuning)


def _compare(candidates: Candidates, times: Times, tuning: Tuning) -> tuple[LoweringName, str]:
    """Gathered or not, by the times of the product and of the whole network, with the reason."""
    ungathered = candidates.ungathered
    product = _gain(times, tuning.shapes)
    if times.loses:
        return ungathered, f"{ungathered}: gathered was measured at {product}"
    if tuning.network is not None:
        tuning.network.refuse_lacking(["gathered"], subject="the whole network")
        if tuning.network.loses:
            network = _gain(tuning.network, tuning.shapes)
            return ungathered, (
                f"{ungathered}: gathered was measured at {product}, but the whole network with "
                f"gathered matrices at {network}, because its other operators are slower then"
            )
    return "gathered", f"{candidates.kept_inputs}; measured at {product}"


def _choose_ungathered(candidates: Candidates, *, sparse: bool) -> LoweringChoice:
    """The choice for a matrix that has no blocks to gather."""
    match candidates.pattern:
        case None:
            reason = NOT_PRUNED if sparse else DENSE_WEIGHTS
        case Unstructured() | NM():
            reason = why_zeros_are_multiplied(candidates.pattern)
        case Block():
            reason = NOTHING_REMAINS
        case Structured():
            reason = ""  # how many heads or neurons remain says it all
        case never:
            assert_never(never)
    return candidates.choose(candidates.ungathered, reason)


def why_zeros_are_multiplied(
    pattern: Unstructured | NM, runtime: CpuRuntime = "onnxruntime"
) -> str:
    """Why the zeros of this pattern save no time in a runtime on a CPU."""
    match runtime:
        case "onnxruntime":
            return _why_onnxruntime_multiplies(pattern)
        case "openvino":
            return (
                f"{pattern}: OpenVINO has no CPU kernel that skips such zeros, so it multiplies "
                "them"
            )
        case never:
            assert_never(never)


def _why_onnxruntime_multiplies(pattern: Unstructured | NM) -> str:
    """Why the zeros of this pattern save no time in ONNX Runtime."""
    match pattern:
        case Unstructured():
            return (
                "unstructured: ONNX Runtime has no kernel that skips single zeros, so it "
                "multiplies them"
            )
        case NM(n=n, m=m):
            return (
                f"{n}:{m} needs sparse tensor cores; ONNX Runtime has no kernel for it, so it "
                "multiplies the zeros"
            )
        case never:
            assert_never(never)


def _timed(
    choice: LoweringChoice, times: Times, lowering: LoweringName, tuning: Tuning
) -> LoweringChoice:
    """The choice with the times of its lowering beside those of the dense one."""
    return replace(choice, measured=times.measured(lowering, tuning.shapes))


def _gain(times: Times, shapes: Sequence[Shape]) -> str:
    """The mean gain and that of each shape: ``0.8x the dense speed (0.7x at 1x32, ...)``."""
    each = ", ".join(
        f"{gain:.1f}x at {shape}" for shape, gain in zip(shapes, times.gains(), strict=True)
    )
    return f"{times.gain:.1f}x the {times.ungathered} speed ({each})"
