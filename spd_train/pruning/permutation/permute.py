"""Find better orders for a classifier's free axes and fold them into its weights.

    found = permute_model(model, encoder, goals=goals, scores=magnitudes(weights))
    scores = found.arranged(scores)

Before: a plain Hugging Face classifier, dense. After: the same function, its rows and columns in
an order under which the goals' masks keep more score; nothing is computed at run time that was
not computed before. On a fixed batch the logits are compared, and where they differ the weights
are put back as they were.

A teacher that is to be compared with its student layer by layer must be in the same order: permute
first, then copy.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadModel, VerificationFailed
from spd_deploy.domain.patterns import NM, Block
from spd_deploy.domain.progress import Progress
from spd_train.model import linear_weights
from spd_train.pruning.importance import magnitudes
from spd_train.pruning.permutation.axes import HIDDEN, Axis, Move, axes_of
from spd_train.pruning.permutation.budget import SearchBudget
from spd_train.pruning.permutation.found import Permutations
from spd_train.pruning.permutation.residual import Places, probe_logits, residual_places
from spd_train.pruning.permutation.search import Goals, Scores, find_permutations

# Largest difference of logits, as a share of the largest, that another order of fp32 additions
# may make.
TOLERANCE = 1e-4


def reorder(model: PreTrainedModel, encoder: Encoder, goals: Goals, progress: Progress) -> None:
    """Bring a classifier, in place, into an order in which its goals' masks keep more magnitude.

    Nothing is done where no goal depends on an order. The same model gets the same order every
    time, on every process and when a run is resumed.
    """
    if not any(isinstance(goal, NM | Block) for goal in goals.values()):
        return
    scores = magnitudes(linear_weights(model, encoder))
    found = permute_model(model, encoder, goals=goals, scores=scores)
    progress.note(
        f"reordered in {found.seconds:.0f} s: the masks would keep {found.total.after:.4f} of "
        f"the squared weights, {found.total.before:.4f} before"
    )
    for axis, why in found.skipped.items():
        progress.note(f"the order of {axis} was left alone: {why}")


def permute_model(
    model: PreTrainedModel,
    encoder: Encoder,
    *,
    goals: Goals,
    scores: Scores,
    budget: SearchBudget | None = None,
) -> Permutations:
    """Search, then fold what was found into ``model`` in place.

    Args:
        model: a plain classifier.
        encoder: its matrices.
        goals: the pattern of each matrix that will be pruned, placed on it, by matrix name.
        scores: importance of each weight, ``[N, K]`` by matrix name, never negative.
        budget: how long to look.

    Returns:
        The orders, so that scores can be arranged likewise, and what they are worth.

    Raises:
        VerificationFailed: the folded model answered otherwise; it has been put back.
    """
    axes = list(axes_of(encoder))
    skipped: dict[str, str] = {}
    places: Places = {}
    try:
        places = residual_places(model, encoder)
    except BadModel as err:
        axes, skipped = [axis for axis in axes if axis.name != HIDDEN], {HIDDEN: err.what}
    found = find_permutations(
        axes, encoder, goals, scores, budget=budget or SearchBudget(), skipped=skipped
    )
    fold_verified(model, found.moves, places)
    return found


def fold_verified(model: PreTrainedModel, moves: Sequence[Move], residual: Places) -> None:
    """Fold the moves and compare the logits with those of before.

    Raises:
        VerificationFailed: they differ; the weights have been put back, bit for bit.
    """
    before_BC = probe_logits(model)
    fold(model, moves, residual)
    difference = float((probe_logits(model) - before_BC).abs().max())
    largest = float(before_BC.abs().max())
    if not difference <= TOLERANCE * largest:
        fold(model, [move.inverse() for move in reversed(moves)], residual)
        raise VerificationFailed(
            "the permuted model does not give the original's logits",
            got=f"a difference of {difference:.2g} where the largest is {largest:.2g}",
            fix="the model is as it was; train without permutation",
        )


def fold(model: PreTrainedModel, moves: Sequence[Move], residual: Places) -> None:
    """Renumber every parameter along the moved axes, in place.

    Args:
        model: a plain classifier.
        moves: orders, made one after another.
        residual: parameters along the hidden axis besides the encoder's matrices.

    Raises:
        BadModel: a parameter along a moved axis is not there; nothing has moved.
    """
    parameters = dict(model.named_parameters())
    placed = [
        (move, {**_matrix_places(move.axis), **(residual if move.axis.name == HIDDEN else {})})
        for move in moves
    ]
    for _, places in placed:
        if missing := places.keys() - parameters.keys():
            raise BadModel(
                "a matrix whose order would change is not in the model",
                got=f"no {min(missing)}",
                fix="permute the plain classifier, before students are grafted into it",
            )
    with torch.no_grad():
        for move, places in placed:
            for name, dimension in places.items():
                values = parameters[name]
                values.copy_(values.index_select(dimension, move.order_X.to(values.device)))


def _matrix_places(axis: Axis) -> dict[str, int]:
    """The dimension along the axis of each parameter of the encoder's matrices."""
    rows = {f"{name}.{p}": 0 for name in axis.rows for p in ("weight", "bias")}
    return rows | {f"{name}.weight": 1 for name in axis.columns}
