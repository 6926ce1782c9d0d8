"""Which lowering each matrix of a trt artefact gets, and why.

The cost model is one of a CPU, so it decides nothing here. Every matrix with blocks is gathered, in
standard operators. The zeros of 2:4 matrices stay in place: TensorRT times its sparse kernels and
takes them where they are faster.
"""

from typing import assert_never

from exporters.autotune.select import DENSE_WEIGHTS, NOT_PRUNED, NOTHING_REMAINS
from exporters.autotune.tuning import Tuning
from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.candidates import Candidates, candidates_of
from exporters.lowering.choice import LoweringChoice
from exporters.precision import Precision
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.patterns import NM, Block, Structured, Unstructured


def choose_engine_lowerings(
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    tuning: Tuning | None,
    precision: Precision,
) -> dict[str, LoweringChoice]:
    """A choice for every prunable matrix, by its name; the same in every precision.

    Raises:
        BadSetting: a tuning was given, which holds times of a CPU.
    """
    if tuning is not None:
        raise BadSetting(
            "a tuning holds times of a CPU, and a TensorRT engine runs on a GPU",
            got=tuning.where,
            fix="leave --tuning and --tune out",
        )
    sparse = checkpoint.pattern is not None
    return {
        name: _choose(one, sparse=sparse)
        for name, one in candidates_of(checkpoint, weights).items()
    }


def _choose(candidates: Candidates, *, sparse: bool) -> LoweringChoice:
    """Gathered where the matrix has blocks, with the reason."""
    gathered = "gathered" in candidates.lowerings
    return candidates.choose(
        "gathered" if gathered else candidates.ungathered, _reason(candidates, sparse=sparse)
    )


def _reason(candidates: Candidates, *, sparse: bool) -> str:
    """Why the matrix has the lowering that it has."""
    match candidates.pattern:
        case None:
            return NOT_PRUNED if sparse else DENSE_WEIGHTS
        case Unstructured():
            return "unstructured: no kernel skips single zeros, so they are multiplied"
        case NM():
            return f"{candidates.pattern}: zeros stay in place, so that TensorRT can skip them"
        case Block() if "gathered" in candidates.lowerings:
            return f"{candidates.kept_inputs}; not timed: `spd bench` compares it with dense"
        case Block():
            return NOTHING_REMAINS
        case Structured():
            return ""  # how many heads or neurons remain says it all
        case never:
            assert_never(never)
