"""Owners of scores: a model keeps its own, and those of the models that it was made from.

Scores are kept by their owner: ``dense`` and ``sparse`` are the checkpoints, and the name of a
precision is an artefact that rounds to it. A quantised artefact of format ``onnx`` has two graphs
and a score of each; ``int8, portable`` is that of the portable one.
"""

from spd_deploy.domain.number_types import is_quantised
from spd_deploy.domain.runtime_choice import reads_portable


def score_owner(
    *,
    pruned: bool,
    precision: str = "fp32",
    format_: str | None = None,
    runtime: str | None = None,
) -> str:
    """Under which owner a model keeps its own score, if it was ever scored as it runs.

    ``format_`` is that of an artefact, and ``runtime`` is where it runs.
    """
    if precision == "fp32":
        return "sparse" if pruned else "dense"
    portable = is_quantised(precision) and format_ == "onnx" and reads_portable(runtime)
    return f"{precision}, portable" if portable else precision


def whose(owner: str, own: str) -> str:
    """A phrase for an owner, from the view of the model that is ``own``."""
    if owner == own:
        return "this model"
    match owner:
        case "dense":
            return "dense model it was made from"
        case "sparse":
            return "sparse model it was made from"
        case _:
            return f"the model in {owner}"
