"""Proves the way from text to answer: token ids, logits, and scores by label."""

import numpy as np
from numpy.typing import NDArray

from spd_deploy.domain.answers import answers_of
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.golden import Golden, GoldenText
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import Tokenizer, Tokens
from spd_deploy.sessions.protocol import Session

# Scores are computed from stored logits by the same formula as at the export; what may differ is
# the last bits of an exponential.
_SCORES_TOLERANCE = 1e-6
_SHOWN = 40


def prove_texts(
    session: Session, artefact: Artefact, golden: Golden, *, file: str, tolerance: float
) -> None:
    """Hold each golden text to its token ids, logits and scores.

    The logits are the checkpoint's or, of a graph that has its own, those of the graph in ``file``,
    within ``tolerance`` in units of max(1, largest logit).

    Raises:
        BadArtefact: one is not what it was at the export.
    """
    tokenizer = artefact.tokenizer()
    for text in golden.texts:
        row = _tokens(tokenizer, text)
        _refuse_other_scores(artefact.task, text)
        expected_C = np.array(text.own.get(file, text.logits), np.float32)
        found_C = session.run(tokenizer.pad([row]))[0]
        off = np.abs(found_C - expected_C).max() / max(1.0, np.abs(expected_C).max())
        if not off <= tolerance:
            raise BadArtefact(
                f"a golden text does not get its logits on this machine: {_shown(text)}",
                got=f"a difference of {off:.2g}, {tolerance:g} allowed",
                fix="export it again on this machine; if that fails too, please report it",
            )


def scores_of_logits(task: Task, logits_C: NDArray[np.float32]) -> dict[str, float]:
    """The score of each label."""
    return {answer.label: answer.score for answer in answers_of(task, logits_C)}


def _tokens(tokenizer: Tokenizer, text: GoldenText) -> Tokens:
    """The text's tokens, which must be those of the export."""
    row = tokenizer.encode(text.text, text.pair)
    if row.ids != text.ids:
        raise BadArtefact(
            f"a golden text is split into other tokens than at the export: {_shown(text)}",
            got=f"ids {list(row.ids)[:8]}, expected {list(text.ids)[:8]}",
            fix="install the version of tokenizers that exported it, or export it again",
        )
    return row


def _refuse_other_scores(task: Task, text: GoldenText) -> None:
    """The task must make of the stored logits the labels and scores that it made at the export."""
    found = scores_of_logits(task, np.array(text.logits, np.float32))
    same = found.keys() == text.scores.keys() and all(
        abs(found[label] - score) <= _SCORES_TOLERANCE * max(1.0, abs(score))
        for label, score in text.scores.items()
    )
    if not same:
        raise BadArtefact(
            f"a golden text gets other labels or scores than at the export: {_shown(text)}",
            got=f"{_spelled(found)}, expected {_spelled(text.scores)}",
            fix="export it again",
        )


def _spelled(scores: dict[str, float] | object) -> str:
    """The first scores, in words."""
    assert isinstance(scores, dict)  # noqa: S101 - JSON objects are
    return ", ".join(f"{label} {score:.4f}" for label, score in list(scores.items())[:4])


def _shown(text: GoldenText) -> str:
    """The beginning of the text."""
    return repr(text.text if len(text.text) <= _SHOWN else f"{text.text[:_SHOWN]}...")
