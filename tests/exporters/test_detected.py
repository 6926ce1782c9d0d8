"""A checkpoint without ``spd.json`` is exported as it would be with it."""

import shutil
from pathlib import Path

import pytest

from exporters.artefact_folder import matrix_rows
from exporters.autotune.select import choose_lowerings
from exporters.classifier_weights import read_weights
from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.artefact import MatrixRow
from spd_deploy.domain.checkpoint import SPD_FILE, Checkpoint, open_checkpoint
from spd_deploy.domain.patterns import parse_pattern
from tests.tiny import tiny_checkpoint

ATTENTION = "bert.encoder.layer.1.attention"
UNPRUNED = {
    f"{ATTENTION}.{name}": 0.0 for name in ("self.query", "self.key", "self.value", "output.dense")
}
KINDS = [
    ("unstructured", 0.8, {}),
    ("2:4", None, {}),
    ("1:4", None, UNPRUNED),
    ("block:64x1", 0.9, {}),
    ("block:64x1", 0.5, {}),
    ("block:32x1", 0.8, UNPRUNED),
    ("block:16x16", 0.6, {}),
    ("block:1x4", 0.75, {}),
    ("structured", 0.5, {}),
    ("structured", 0.75, UNPRUNED),
]


def foreign(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """The same model as another tool would have left it."""
    shutil.copytree(checkpoint.folder, folder, ignore=shutil.ignore_patterns(SPD_FILE))
    return open_checkpoint(folder)


def rows_of(checkpoint: Checkpoint) -> tuple[MatrixRow, ...]:
    return matrix_rows(checkpoint, choose_lowerings(checkpoint, read_weights(checkpoint)))


@pytest.mark.parametrize(("spelled", "sparsity", "goals"), KINDS, ids=str)
def test_what_is_not_declared_is_lowered_alike(
    tmp_path: Path, spelled: str, sparsity: float | None, goals: dict[str, float]
) -> None:
    """Every matrix has the same density, lowering, reason and FLOPs with and without spd.json."""
    pattern = parse_pattern(spelled, sparsity)
    declared = tiny_checkpoint(tmp_path / "c", pattern=pattern, goals=goals)

    found = foreign(declared, tmp_path / "f")

    assert rows_of(found) == rows_of(declared)
    assert declared.detected is None


@pytest.mark.parametrize("spelled", ["unstructured", "2:4", "block:32x1", "structured"])
def test_what_is_detected_passes_verification(tmp_path: Path, spelled: str) -> None:
    """The artefact has the pattern's name and lowerings, and the parity of any other."""
    declared = tiny_checkpoint(tmp_path / "c", pattern=parse_pattern(spelled))

    artefact = artefact_from_checkpoint(foreign(declared, tmp_path / "f"), tmp_path / "a")

    assert artefact.manifest.pattern == spelled
    assert artefact.manifest.matrices == rows_of(declared)
    assert declared.pattern is not None
    assert artefact.manifest.sparsity == pytest.approx(declared.pattern.sparsity, abs=0.01)


def test_sparsity_may_differ_by_matrix(tmp_path: Path) -> None:
    """Each matrix is run at the sparsity that it has, not at a common one."""
    plain = tiny_checkpoint(tmp_path / "p", pattern=parse_pattern("block:32x1", 0.5))
    goals = {m.name: 0.5 + 0.4 * m.layer for m in plain.encoder.matrices()}
    declared = tiny_checkpoint(tmp_path / "c", pattern=plain.pattern, goals=goals)

    found = foreign(declared, tmp_path / "f")

    assert rows_of(found) == rows_of(declared)
    assert len({row.flops_share for row in rows_of(found)}) > 1


def test_a_matrix_that_is_dense_beside_sparse_ones_is_not_promised(tmp_path: Path) -> None:
    """What has no zeros is exported without a pattern, so verification asks nothing of it."""
    declared = tiny_checkpoint(tmp_path / "c", pattern=parse_pattern("2:4"), goals=UNPRUNED)

    artefact = artefact_from_checkpoint(foreign(declared, tmp_path / "f"), tmp_path / "a")

    dense = {row.name for row in artefact.manifest.matrices if row.pattern == "dense"}
    assert dense == set(UNPRUNED)
