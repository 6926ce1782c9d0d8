"""How much more of the squared weights a pattern keeps in a better order, and how long that takes.

The order that was there, a random one, and the one that the search finds; and what each kind of
axis brings alone. Nothing is trained or timed but the search.

    python -m benchmarks.permutation --model FOLDER --target 2:4 --target block:64x1@0.75
    python -m benchmarks.permutation --target 2:4             # BERT-base's sizes, random weights
"""

import argparse
from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
)

from spd_deploy.cli.output.console import show_table
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.patterns import Pattern, parse_pattern
from spd_train.model import encoder_sizes, linear_weights
from spd_train.pruning.importance import magnitudes
from spd_train.pruning.permutation.axes import Axis, AxisOrder, axes_of, spread
from spd_train.pruning.permutation.budget import SearchBudget
from spd_train.pruning.permutation.permute import permute_model
from spd_train.pruning.permutation.search import Scores, Targets, find_permutations, kept_score


def main() -> None:
    """Search for each target and print what is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a Hugging Face folder; none: BERT-base, random weights")
    parser.add_argument("--target", action="append", required=True, help="2:4 or block:64x1@0.75")
    parser.add_argument("--alone", action="store_true", help="each kind of axis alone, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for text in options.target:
        model = model_of(options.model)
        encoder = encoder_sizes(model)
        target = goal_of(text)
        if options.alone:
            show_alone(text, target, encoder, magnitudes(linear_weights(model, encoder)))
        show_found(text, target, encoder, model)


def show_found(text: str, target: Pattern, encoder: Encoder, model: PreTrainedModel) -> None:
    """Shares kept by role: in the old order, a random one and the one found."""
    scores = magnitudes(linear_weights(model, encoder))
    targets: Targets = {m.name: target for m in encoder.matrices()}
    found = permute_model(model, encoder, targets=targets, scores=scores)
    at_random = shuffled(axes_of(encoder), scores)
    names = {m.name: m.role for m in encoder.matrices()}
    rows = []
    for role, kept in found.kept.items():
        random = share(at_random, target, [name for name in names if names[name] == role])
        rows.append([role, *shares(kept.before, random, kept.after)])
    total = found.total
    rows.append(["all", *shares(total.before, share(at_random, target, names), total.after)])
    title = (
        f"{text}: share of squared weights kept; {found.seconds:.0f} s, {len(found.moves)} moves"
    )
    show_table(title, ["role", "as it was", "random order", "found"], rows)


def show_alone(text: str, target: Pattern, encoder: Encoder, scores: Scores) -> None:
    """Share of all that is kept when only one kind of axis may be reordered."""
    targets: Targets = {m.name: target for m in encoder.matrices()}
    rows = []
    for kind in ("hidden", "heads", "queries", "values", "neurons"):
        axes = [axis for axis in axes_of(encoder) if axis.name.endswith(kind)]
        found = find_permutations(axes, encoder, targets, scores, budget=SearchBudget())
        rows.append([kind, *shares(found.total.before, found.total.after), f"{found.seconds:.1f}"])
    show_table(f"{text}: one kind of axis alone", ["axis", "as it was", "found", "s"], rows)


def shuffled(axes: Iterable[Axis], scores: Scores) -> dict[str, Tensor]:
    """The scores with every axis in a random order."""
    draw = torch.Generator().manual_seed(0)
    arranged = dict(scores)
    for axis in axes:
        per = axis.segment // axis.unit
        inner = torch.rand(axis.size // axis.segment, per, generator=draw).argsort(1)
        order_U = (inner + torch.arange(len(inner))[:, None] * per).flatten()
        move = AxisOrder(axis=axis, order_X=spread(order_U, axis.unit))
        arranged |= {name: move.arranged(name, arranged[name]) for name in axis.matrices}
    return arranged


def share(scores: Scores, target: Pattern, names: Iterable[str]) -> float:
    """Share of the named matrices' score that the target keeps."""
    named = [scores[name] for name in names]
    return sum(kept_score(s, target) for s in named) / sum(float(s.sum()) for s in named)


def shares(*values: float) -> list[str]:
    """Shares as the table prints them."""
    return [f"{value:.4f}" for value in values]


def goal_of(text: str) -> Pattern:
    """The pattern spelled before the ``@``, at the sparsity after it."""
    pattern, _, sparsity = text.partition("@")
    return parse_pattern(pattern, float(sparsity) if sparsity else None)


def model_of(folder: str | None) -> PreTrainedModel:
    """The classifier in ``folder``, or one of BERT-base's sizes that has learned nothing."""
    torch.manual_seed(0)
    if folder is None:
        return BertForSequenceClassification(BertConfig())
    return AutoModelForSequenceClassification.from_pretrained(  # type: ignore[no-any-return]
        folder, num_labels=2, dtype=torch.float32
    )


if __name__ == "__main__":
    main()
