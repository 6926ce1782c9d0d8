"""Which lowering each matrix gets, and why: a pure function of its pattern, weights and times.

What remains of a matrix is gathered where it has blocks and gathering pays, and dense otherwise.
Whether it pays, a :class:`Tuning` knows that was measured on the machine; without one, the cost
model promises. An artefact has one graph for all shapes, so what counts is the geometric mean of
the gains at the shapes that were asked for. One gathered matrix makes the whole network
feature-major: a tuning has timed that too, and a network that loses as a whole has none gathered;
the cost model knows of products alone. Heads and neurons that are wholly zero go whatever the times
say, which then only tell what that gained: they take room in the file, and all that lies between
coupled matrices is smaller without them. The reason is written down for ``spd inspect``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from exporters.autotune.tuning import TimedProduct, Times, Tuning
from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.candidates import Candidates, LoweringName, candidates_of
from exporters.lowering.lowering import Lowering
from exporters.precision import Precision
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.patterns import NM, Block, Structured, Unstructured
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.domain.shapes import Measured, Shape

# A gathered product must promise at least this gain over the dense one to be chosen unmeasured.
LEAST_GAIN = 1.1

EXCLUDED = "left dense: not pruned"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A matrix's lowering with the reason for it, and with its times where it was timed."""

    lowering: Lowering
    reason: str
    measured: tuple[Measured, ...] = ()


def choose(
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    tuning: Tuning | None = None,
    precision: Precision = Precision.FP32,
    *,
    ways: Mapping[str, Candidates] | None = None,
) -> dict[str, Choice]:
    """A choice for every prunable matrix, by its name; by ``tuning``'s times where there is one.

    ``precision`` is that of the products; ``ways`` are those of the checkpoint, for who has them
    already.

    Raises:
        BadReport: the tuning is of another checkpoint, in another precision, or lacks a product or
            one of its ways.
    """
    ways = ways or candidates_of(checkpoint, weights)
    sparse = checkpoint.pattern is not None
    if tuning is None:
        return {name: _promised(way, precision, sparse=sparse) for name, way in ways.items()}
    tuning.refuse_other(checkpoint.weights_sha256)
    tuning.refuse_precision(precision)
    last = checkpoint.encoder.layers - 1
    found = {name: _timed(way, tuning, last=last, sparse=sparse) for name, way in ways.items()}
    compact = any("compact" in known.lowerings for known in ways.values())
    if tuning.network is not None and compact:
        tuning.network.refuse_lacking(["compact"], of="the whole network")
    return found


def forced(
    checkpoint: Checkpoint, weights: ClassifierWeights, way: LoweringName
) -> dict[str, Choice]:
    """Every matrix in one way, whether it pays or not; those that have no such way as near to it.

    The reason of such a one says what it lacks.

    Raises:
        BadSetting: no matrix can be run so.
    """
    ways = candidates_of(checkpoint, weights)
    if not any(way in known.lowerings for known in ways.values()):
        possible = sorted({name for known in ways.values() for name in known.lowerings})
        raise BadSetting(
            f"no matrix of {checkpoint.folder} can be run {way}",
            got=f"a pattern of {checkpoint.pattern or 'dense'}, which runs {', '.join(possible)}",
            fix="leave --lowering out; gathered needs blocks, compact dead heads or neurons",
        )
    return {
        name: _choice(known, way, "asked for with --lowering")
        if way in known.lowerings
        else _choice(known, known.plain, f"{way} was asked for: {_lacking(known, way)}")
        for name, known in ways.items()
    }


def _lacking(ways: Candidates, way: LoweringName) -> str:
    """Why a matrix cannot be run in a way."""
    if way == "compact":
        return "no heads or neurons are wholly zero here"
    return "nothing is left to multiply" if isinstance(ways.pattern, Block) else "no blocks here"


def in_way(ways: Mapping[str, Candidates], way: LoweringName) -> dict[str, Choice]:
    """Every matrix in one way, or as near to it as it can be run; for timing whole networks."""
    found = {}
    for name, known in ways.items():
        nearest: LoweringName = way if way in known.lowerings else known.plain
        found[name] = Choice(lowering=known.lowerings[nearest], reason=f"all {way}")
    return found


def _promised(ways: Candidates, precision: Precision, *, sparse: bool) -> Choice:
    """By the cost model."""
    if "gathered" not in ways.lowerings:
        return _plain(ways, sparse=sparse)
    assert isinstance(ways.pattern, Block)  # noqa: S101 - nothing else is gathered
    plain, gathered = ways.lowerings[ways.plain], ways.lowerings["gathered"]
    gain = plain.cost.seconds(precision) / gathered.cost.seconds(precision)
    if gain < LEAST_GAIN:
        return _choice(
            ways,
            ways.plain,
            f"gathered would be {gain:.1f}x the {ways.plain} speed by the cost model: with "
            f"{ways.pattern.rows} rows a block, copying the kept inputs costs more than it saves"
            + (f" in {precision}" if precision is not Precision.FP32 else ""),
        )
    return _choice(ways, "gathered", f"{reads(ways)}; the cost model promises {gain:.1f}x")


def _timed(ways: Candidates, tuning: Tuning, *, last: int, sparse: bool) -> Choice:
    """By measurement."""
    if not ways.timed:
        return _plain(ways, sparse=sparse)
    times = tuning.of(TimedProduct.of(ways, last=last))
    times.refuse_lacking(ways.lowerings, of=ways.matrix.name)
    if "gathered" not in ways.lowerings:
        plain = _plain(ways, sparse=sparse)
        return Choice(
            lowering=plain.lowering,
            reason=plain.reason,
            measured=times.measured(ways.plain, tuning.shapes),
        )
    said = _gain(times, tuning.shapes)
    if times.loses:
        reason = f"{ways.plain}: gathered would be {said}"
        return _choice(ways, ways.plain, reason, times, tuning)
    if tuning.network is not None:
        tuning.network.refuse_lacking(["gathered"], of="the whole network")
    if tuning.network is not None and tuning.network.loses:
        whole = _gain(tuning.network, tuning.shapes)
        reason = (
            f"{ways.plain}: gathered would be {said}, but the network as a whole {whole}, "
            "since what is not gathered is slower beside it"
        )
        return _choice(ways, ways.plain, reason, times, tuning)
    return _choice(ways, "gathered", f"{reads(ways)}; measured {said}", times, tuning)


def _plain(ways: Candidates, *, sparse: bool) -> Choice:
    """Without gathering, for a matrix that has no blocks to gather."""
    match ways.pattern:
        case None:
            reason = EXCLUDED if sparse else "dense weights"
        case Unstructured() | NM():
            reason = unskipped(ways.pattern)
        case Block():
            reason = "nothing is left to multiply"
        case Structured():
            reason = ""
        case never:
            assert_never(never)
    return _choice(ways, ways.plain, reason)


def unskipped(pattern: Unstructured | NM, runtime: CpuRuntime = "onnxruntime") -> str:
    """Why zeros of this pattern save no time in a runtime."""
    if runtime == "openvino":
        return f"{pattern}: OpenVINO has no CPU kernel that skips such zeros, it multiplies them"
    match pattern:
        case Unstructured():
            return "unstructured: ONNX Runtime does not skip single zeros, it multiplies them"
        case NM(n=n, m=m):
            return (
                f"{n}:{m} needs sparse tensor cores: ONNX Runtime has no kernel for it, "
                "so its zeros are multiplied"
            )
        case never:
            assert_never(never)


def _choice(
    ways: Candidates,
    way: LoweringName,
    reason: str,
    times: Times | None = None,
    tuning: Tuning | None = None,
) -> Choice:
    """The choice of a way; the reason begins with the heads or neurons that are left, if some went.

    Of a structured pattern there is no more to say than that.
    """
    return Choice(
        lowering=ways.lowerings[way],
        reason="; ".join(part for part in (ways.left, reason) if part),
        measured=times.measured(way, tuning.shapes) if times and tuning else (),
    )


def reads(ways: Candidates) -> str:
    """What a gathered product saves."""
    assert isinstance(ways.pattern, Block)  # noqa: S101 - nothing else is gathered
    share = ways.lowerings["gathered"].flops_share / ways.lowerings[ways.plain].flops_share
    return f"{ways.pattern.rows} outputs at a time read the {share:.0%} of inputs they kept"


def _gain(times: Times, shapes: Sequence[Shape]) -> str:
    """The mean gain with those it is the mean of, such as ``0.8x here (1x32 0.7x, 8x128 0.9x)``."""
    each = ", ".join(
        f"{shape} {gain:.1f}x" for shape, gain in zip(shapes, times.gains(), strict=True)
    )
    return f"{times.gain:.1f}x here ({each})"
