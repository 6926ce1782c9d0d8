"""How each matrix is run in an engine: blocks gathered, the rest as it is, and why.

No cost model of a CPU says anything about a GPU, and none is asked. Blocks are gathered, in
standard operators, wherever there are blocks; zeros in 2:4 are left in place for TensorRT's sparse
kernels, which it takes where it finds them faster.
"""

from typing import assert_never

from exporters.autotune.select import EXCLUDED, Choice, reads
from exporters.autotune.tuning import Tuning
from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.candidates import Candidates, LoweringName, candidates_of
from exporters.precision import Precision
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.patterns import NM, Block, Structured, Unstructured


def choose_for_engine(
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    tuning: Tuning | None,
    precision: Precision,
) -> dict[str, Choice]:
    """A choice for every prunable matrix, by its name; the same in every precision.

    Raises:
        BadSetting: a tuning was given, which holds times of a CPU.
    """
    if tuning is not None:
        raise BadSetting(
            "a tuning holds times of a CPU, and an engine runs on a GPU",
            got=tuning.where,
            fix="leave --tuning and --tune out",
        )
    sparse = checkpoint.pattern is not None
    return {
        name: _choice(ways, sparse=sparse)
        for name, ways in candidates_of(checkpoint, weights).items()
    }


def _choice(ways: Candidates, *, sparse: bool) -> Choice:
    """Gathered where that is a way; the reason begins with the heads or neurons that are left."""
    way: LoweringName = "gathered" if "gathered" in ways.lowerings else ways.plain
    parts = (ways.left, _reason(ways, sparse=sparse))
    return Choice(lowering=ways.lowerings[way], reason="; ".join(part for part in parts if part))


def _reason(ways: Candidates, *, sparse: bool) -> str:
    """Why it is run so."""
    match ways.pattern:
        case None:
            return EXCLUDED if sparse else "dense weights"
        case Unstructured():
            return "unstructured: no kernel skips single zeros, they are multiplied"
        case NM():
            return f"{ways.pattern}: zeros stay in place, for TensorRT to skip"
        case Block() if "gathered" in ways.lowerings:
            return f"{reads(ways)}; untimed: spd bench holds it against dense on the GPU"
        case Block():
            return "nothing is left to multiply"
        case Structured():
            return ""
        case never:
            assert_never(never)
