"""Search better orders of a classifier's free axes, and apply them to its weights.

    permutations = permute_model(model, encoder, targets=targets, scores=magnitudes(weights))
    scores = permutations.arranged(scores)

Before: a plain dense Hugging Face classifier. After: the same function, with rows and columns in an
order in which the masks of the targets keep a higher score. Nothing is added at run time. The
logits on a fixed batch are compared, and if they differ the weights are restored.

A teacher that is compared with its student layer by layer must have the same order, so permute
first and copy afterwards.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadModel, VerificationFailed
from spd_deploy.domain.progress import Progress
from spd_train.model import linear_weights
from spd_train.pruning.importance import magnitudes
from spd_train.pruning.permutation.axes import HIDDEN, Axis, AxisOrder, axes_of
from spd_train.pruning.permutation.budget import SearchBudget
from spd_train.pruning.permutation.permutations import Permutations
from spd_train.pruning.permutation.residual import Places, probe_logits, residual_places
from spd_train.pruning.permutation.search import (
    Scores,
    Targets,
    depends_on_order,
    find_permutations,
)

# Largest difference of logits, as a share of the largest logit. Another order of fp32 additions
# makes such differences.
TOLERANCE = 1e-4


def reorder_for(
    model: PreTrainedModel, encoder: Encoder, targets: Targets, progress: Progress
) -> None:
    """Permute a classifier in place, so that the masks of its targets keep larger weights.

    Nothing is done if no target depends on the order. The same model gets the same order on every
    process and in every resumed run.

    Args:
        model: a plain dense classifier.
        encoder: its matrices.
        targets: pattern and sparsity by matrix name.
        progress: reports what was gained.
    """
    if not any(depends_on_order(target) for target in targets.values()):
        return
    scores = magnitudes(linear_weights(model, encoder))
    permutations = permute_model(model, encoder, targets=targets, scores=scores)
    progress.note(
        f"permuted in {permutations.seconds:.0f} s: the masks keep {permutations.total.after:.4f} "
        f"of the squared weights, {permutations.total.before:.4f} before"
    )
    for axis, why in permutations.skipped.items():
        progress.note(f"axis {axis} is not permuted: {why}")


def permute_model(
    model: PreTrainedModel,
    encoder: Encoder,
    *,
    targets: Targets,
    scores: Scores,
    budget: SearchBudget | None = None,
) -> Permutations:
    """Search better orders, then apply them to ``model`` in place.

    Args:
        model: a plain dense classifier.
        encoder: its matrices.
        targets: pattern and sparsity by matrix name.
        scores: importance ``[N, K]`` by matrix name, never negative.
        budget: number of rounds of the search.

    Returns:
        The orders, so that scores can be put into the same order, and what they gain.

    Raises:
        VerificationFailed: the permuted model gives other logits; the model has been restored.
    """
    axes = list(axes_of(encoder))
    skipped: dict[str, str] = {}
    places: Places = {}
    try:
        places = residual_places(model, encoder)
    except BadModel as err:
        axes, skipped = [axis for axis in axes if axis.name != HIDDEN], {HIDDEN: err.what}
    permutations = find_permutations(
        axes, encoder, targets, scores, budget=budget or SearchBudget(), skipped=skipped
    )
    fold_verified(model, permutations.moves, places)
    return permutations


def fold_verified(model: PreTrainedModel, moves: Sequence[AxisOrder], residual: Places) -> None:
    """Apply the orders, and compare the logits with those before.

    Raises:
        VerificationFailed: they differ; the weights have been restored, bit for bit.
    """
    before_BC = probe_logits(model)
    fold(model, moves, residual)
    difference = float((probe_logits(model) - before_BC).abs().max())
    largest = float(before_BC.abs().max())
    if not difference <= TOLERANCE * largest:
        fold(model, [move.inverse() for move in reversed(moves)], residual)
        raise VerificationFailed(
            "the permuted model does not give the logits of the original",
            got=f"a difference of {difference:.2g} where the largest is {largest:.2g}",
            fix="the model has been restored; use --no-permute",
        )


def fold(model: PreTrainedModel, moves: Sequence[AxisOrder], residual: Places) -> None:
    """Renumber every parameter along the moved axes, in place.

    Args:
        model: a plain dense classifier.
        moves: the orders, applied one after another.
        residual: dimension of each parameter along the hidden axis, besides the encoder's matrices.

    Raises:
        BadModel: a parameter along a moved axis is missing; nothing has been moved.
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
    """The dimension along the axis of each parameter of the encoder's matrices, by name."""
    rows = {f"{name}.{p}": 0 for name in axis.rows for p in ("weight", "bias")}
    return rows | {f"{name}.weight": 1 for name in axis.columns}
