"""Which weights stay: importance scores to masks, for every pattern, over the whole encoder.

Magnitude is the importance (the paper's choice); matrices are ranked one by one, each to the same
sparsity. Under the structured pattern the matrices that share heads or neurons are ranked
together, since their slices stand or fall together (``domain.encoder``).
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from spd_deploy.domain.encoder import Encoder, Matrix
from spd_deploy.domain.patterns import Pattern, Structured

Masks = Mapping[str, Tensor]


def masks_of(
    encoder: Encoder, pattern: Pattern, scores: Mapping[str, Tensor], sparsity: float
) -> dict[str, Tensor]:
    """A boolean mask ``[N, K]`` by matrix name, each keeping what scores highest at ``sparsity``.

    Args:
        encoder: says which matrices there are and which slices belong together.
        pattern: what zeros may be where.
        scores: importance of each weight, ``[N, K]`` by matrix name, never negative.
        sparsity: share of zeros wanted now; at most the pattern's own.
    """
    if isinstance(pattern, Structured):
        return dict(_structured_masks(encoder, pattern, scores, sparsity))
    return {m.name: pattern.mask(scores[m.name], sparsity) for m in encoder.matrices()}


def magnitudes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The magnitude of each weight, squared so that sums over blocks are energies.

    A pattern that ranks single weights ranks them the same either way.
    """
    return {name: weight.detach().float().square() for name, weight in weights.items()}


def apply_masks(weights: Mapping[str, nn.Parameter], masks: Masks) -> None:
    """Set what the masks drop to zero, in place."""
    with torch.no_grad():
        for name, mask in masks.items():
            weights[name].mul_(mask)


def densities_of(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Share of non-zeros by matrix name."""
    return {
        name: float(weight.count_nonzero()) / weight.numel() for name, weight in weights.items()
    }


def sparsity_of(masks: Masks) -> float:
    """Share of zeros over all the masks."""
    if not masks:
        return 0.0
    kept = sum(int(mask.sum()) for mask in masks.values())
    return 1 - kept / sum(mask.numel() for mask in masks.values())


def _structured_masks(
    encoder: Encoder, pattern: Structured, scores: Mapping[str, Tensor], sparsity: float
) -> Iterator[tuple[str, Tensor]]:
    """Masks of each group of coupled matrices, from the summed scores of their slices."""
    for group in encoder.coupled():
        shared = [(m, _on(encoder, m, pattern)) for m in group]
        total_U = torch.stack([p.slice_scores(scores[m.name]) for m, p in shared]).sum(0)
        keep_U = pattern.keep(total_U, sparsity)
        yield from ((m.name, p.spread(keep_U, m.shape)) for m, p in shared)


def _on(encoder: Encoder, matrix: Matrix, pattern: Structured) -> Structured:
    """The structured pattern with the axis and width of ``matrix``."""
    placed = encoder.pattern_on(matrix, pattern)
    assert isinstance(placed, Structured)  # noqa: S101 - a structured pattern stays one
    return placed
