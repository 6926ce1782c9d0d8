"""Masks over a whole encoder: best by brute force, and targets that refuse what makes no sense."""

import pytest
import torch
from torch import Tensor

from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadPattern, BadSetting
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured
from spd_train.model import encoder_from_config
from spd_train.pruning.importance import (
    activation_scores,
    inverse_diagonal,
    magnitudes,
    second_order_scores,
)
from spd_train.pruning.masks import coupled_targets, densities_of, masks_of, sparsity_of, targets_of
from tests.domain.test_patterns import choices
from tests.tiny import tiny_config

TINY = encoder_from_config(tiny_config(layers=1, hidden=4, heads=2, intermediate=4))
PATTERNS: list[Pattern] = [
    Unstructured(sparsity=0.75),
    NM(n=2, m=4),
    Block(rows=2, columns=1, sparsity=0.5),
    Block(rows=1, columns=2, sparsity=0.5),
]
SCORES = ["magnitude", "activation", "second-order"]


def scores_of(encoder: Encoder, importance: str, seed: int = 0) -> dict[str, Tensor]:
    """Scores of one kind, of random weights and inputs."""
    draw = torch.Generator().manual_seed(seed)
    weights = {m.name: torch.randn(m.shape, generator=draw) for m in encoder.matrices()}
    if importance == "magnitude":
        return magnitudes(weights)
    found = {}
    for name, weight in weights.items():
        x_TK = torch.randn(30, weight.shape[1], generator=draw)
        second_KK = x_TK.T @ x_TK / 30
        found[name] = (
            activation_scores(weight, second_KK)
            if importance == "activation"
            else second_order_scores(weight, inverse_diagonal(second_KK))
        )
    return found


@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
@pytest.mark.parametrize("importance", SCORES)
def test_no_other_masks_keep_a_higher_score(pattern: Pattern, importance: str) -> None:
    """Each matrix keeps the most that any mask of its pattern could, by every score."""
    scores = scores_of(TINY, importance)

    masks = masks_of(TINY, targets_of(TINY, pattern), scores)

    assert set(masks) == {m.name for m in TINY.matrices()}
    for matrix in TINY.matrices():
        score_NK = scores[matrix.name]
        best = max(float(score_NK[c].sum()) for c in choices(pattern, matrix.shape))
        assert float(score_NK[masks[matrix.name]].sum()) == pytest.approx(best)


@pytest.mark.parametrize("importance", SCORES)
def test_no_other_slices_keep_a_higher_score(importance: str) -> None:
    """Coupled matrices keep those heads and neurons whose scores sum highest over all of them."""
    scores = scores_of(TINY, importance)
    targets = targets_of(TINY, Structured(sparsity=0.5))

    masks = masks_of(TINY, targets, scores)

    for group in coupled_targets(TINY, targets):
        options = [choices(targets[m.name], m.shape) for m in group]
        totals = [
            sum(float(scores[m.name][c].sum()) for m, c in zip(group, together, strict=True))
            for together in zip(*options, strict=True)  # the same slices in each
        ]
        kept = sum(float(scores[m.name][masks[m.name]].sum()) for m in group)
        assert kept == pytest.approx(max(totals))


def test_an_excluded_matrix_has_no_goal() -> None:
    """Names that contain a part are left out, and their masks with them."""
    targets = targets_of(TINY, Unstructured(sparsity=0.5), ("query", "output.dense"))

    masks = masks_of(TINY, targets, scores_of(TINY, "magnitude"))

    left = {m.name for m in TINY.matrices()} - set(masks)
    assert {m.role for m in TINY.matrices() if m.name in left} == {
        "query",
        "attention_output",
        "output",
    }


@pytest.mark.parametrize(
    ("pattern", "exclude", "reason"),
    [
        (Unstructured(), ("quary",), "no matrix has such a name"),
        (Unstructured(), ("layer",), "all matrices are excluded"),
        (Structured(), ("query",), "excluded together or not at all"),
    ],
)
def test_an_exclusion_that_makes_no_sense_is_refused(
    pattern: Pattern, exclude: tuple[str, ...], reason: str
) -> None:
    """One that matches nothing, one that leaves nothing, one that tears heads apart."""
    with pytest.raises(BadSetting, match=reason):
        targets_of(TINY, pattern, exclude)


@pytest.mark.parametrize(
    ("pattern", "misfit"),
    [
        (Block(rows=8, columns=1), "intermediate"),
        (Block(rows=1, columns=8), "output"),
        (NM(n=2, m=8), "output"),
    ],
    ids=str,
)
def test_a_pattern_must_fit_what_is_not_excluded(pattern: Pattern, misfit: str) -> None:
    """One matrix of a size that the pattern does not divide is enough, unless it stays dense."""
    encoder = encoder_from_config(tiny_config(layers=1, hidden=8, heads=2, intermediate=12))
    (name,) = (m.name for m in encoder.matrices() if m.role == misfit)

    with pytest.raises(BadPattern, match="divide"):
        targets_of(encoder, pattern)

    fitting = {m.name for m in encoder.matrices()} - {name}
    assert targets_of(encoder, pattern, (name,)) == dict.fromkeys(fitting, pattern)


def test_whole_groups_of_slices_may_be_excluded() -> None:
    """All matrices that share neurons stay dense together."""
    targets = targets_of(TINY, Structured(), ("intermediate.dense", "layer.0.output.dense"))

    assert len(targets) == 4


def test_sparsity_and_density_are_counted() -> None:
    """Over masks by weight, not by matrix; over weights by matrix."""
    masks = {"a": torch.tensor([[True, False]]), "b": torch.ones(2, 3, dtype=torch.bool)}

    assert sparsity_of(masks) == pytest.approx(1 / 8)
    assert sparsity_of({}) == 0.0
    assert densities_of({"a": torch.tensor([[0.0, 3.0]])}) == {"a": 0.5}
