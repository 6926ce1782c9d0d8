"""How scores are printed: each with whose it is, and a word where the model has none of its own."""

from collections.abc import Iterator, Mapping

from spd_deploy.domain.checkpoint import Scores
from spd_deploy.domain.decision import Decision
from spd_deploy.domain.scores import whose
from spd_deploy.domain.temperature import TemperatureScaling


def score_lines(scores: Mapping[str, Scores], split: str | None, own: str) -> Iterator[str]:
    """A line an arm; ``own`` is the arm of the model that they are printed for."""
    for arm, found in scores.items():
        shown = ", ".join(f"{k} {'-' if v is None else f'{v:.4f}'}" for k, v in found.items())
        yield f"{whose(arm, own)}: {shown} ({split})"
    if own not in scores:
        yield "this model: not scored; spd evaluate shows what it scores"


def trust_lines(
    calibration: Mapping[str, TemperatureScaling], own: str, decision: Decision
) -> Iterator[str]:
    """A line for the calibration of each arm, for each threshold, and for the bound to abstain."""
    for arm, found in calibration.items():
        yield f"{whose(arm, own)}: {found}"
    for label, threshold in decision.thresholds.items():
        yield f"threshold of {label}: {threshold}"
    if decision.abstain_below is not None:
        yield f"abstains below a score of {decision.abstain_below:g}"
