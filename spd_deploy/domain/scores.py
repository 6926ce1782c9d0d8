"""Whose a score is: checkpoints and artefacts keep, beside their own, those they were made from.

Scores are kept by arm: ``dense`` and ``sparse`` of the checkpoints, and of an artefact that rounds
the name of its precision.
"""


def own_arm(*, pruned: bool, precision: str = "fp32", runtime: str | None = None) -> str:
    """Under which arm a model keeps its own score, if it was ever scored as it runs."""
    if precision == "fp32":
        return "sparse" if pruned else "dense"
    portable = precision == "int8" and runtime == "openvino"
    return "int8, portable" if portable else precision


def whose(arm: str, own: str) -> str:
    """What an arm is, seen from the model whose own arm is ``own``."""
    if arm == own:
        return "this model"
    match arm:
        case "dense":
            return "dense model it was made from"
        case "sparse":
            return "sparse model it was made from"
        case _:
            return f"the model in {arm}"
