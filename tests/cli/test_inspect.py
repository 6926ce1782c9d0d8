"""``spd inspect`` on the command line: the same facts of a checkpoint and of its artefact."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from exporters.export import artefact_from_checkpoint
from spd_deploy.cli.main import cli
from spd_deploy.cli.output.matrices_table import matrices_table, spelled_layers
from spd_deploy.domain.artefact import MatrixRow, open_artefact
from spd_deploy.domain.checkpoint import SPD_FILE, Checkpoint, save_description
from spd_deploy.domain.files import sha256_of
from spd_deploy.domain.patterns import parse_pattern
from tests.tiny import tiny_checkpoint


def inspect(*words: object) -> Result:
    return CliRunner().invoke(cli, ["inspect", *map(str, words)])


def said_of(path: Path) -> Mapping[str, Any]:
    value: Mapping[str, Any] = json.loads(inspect(path, "--json").stdout)
    return value


@pytest.fixture(scope="module", params=["2:4", "block:32x1", "structured", None])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint ``c`` and its artefact ``a``."""
    folder = tmp_path_factory.mktemp("inspect")
    pattern = None if request.param is None else parse_pattern(request.param)
    artefact_from_checkpoint(tiny_checkpoint(folder / "c", pattern=pattern), folder / "a")
    return folder


def test_a_checkpoint_is_told_what_export_will_do(exported: Path) -> None:
    """Inspecting the checkpoint promises the rows that the artefact then has."""
    before, after = said_of(exported / "c"), said_of(exported / "a")

    assert before["matrices"] == after["matrices"]
    assert before["flops_share"] == after["flops_share"]


def test_totals_are_those_of_the_weights(exported: Path) -> None:
    """Density is the share of non-zeros over all matrices, counted anew."""
    said = said_of(exported / "a")
    weights = load_file(exported / "c" / "model.safetensors")
    matrices = [weights[f"{row['name']}.weight"] for row in said["matrices"]]

    nonzero = sum(int(weight.count_nonzero()) for weight in matrices)

    assert said["density"] == pytest.approx(nonzero / sum(w.numel() for w in matrices))


def test_every_reason_is_shown_once(exported: Path) -> None:
    """With --all there is a row a matrix, and each reason stands below them, in full, once."""
    said, shown = said_of(exported / "a"), inspect(exported / "a", "--all").stdout

    for row in said["matrices"]:
        assert shown.count(row["name"].removeprefix("bert.encoder.")) == 1
        assert shown.count(row["reason"]) == 1


def test_matrices_that_are_alike_share_a_row(tmp_path: Path) -> None:
    """Of six layers with one pattern each role is one row, which names all its layers."""
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=parse_pattern("block:32x1"), layers=6)

    lines = inspect(checkpoint.folder).stdout.splitlines()

    rows = [[cell.strip() for cell in line.split("│")] for line in lines if "│" in line]
    roles = {name.split(".", 4)[-1] for name in checkpoint.densities}
    assert {row[0] for row in rows} == roles
    assert len(rows) == len(roles) == 6
    assert {row[1] for row in rows} == {"0-5"}


@pytest.mark.parametrize(
    ("layers", "spelled"),
    [([3], "3"), ([0, 1], "0-1"), ([0, 2, 3, 5], "0, 2-3, 5"), (range(12), "0-11")],
)
def test_layers_are_spelled_by_the_ends_of_their_runs(layers: list[int], spelled: str) -> None:
    """A run of layers is its first and its last."""
    assert spelled_layers(layers) == spelled


def test_what_differs_is_not_in_one_row(tmp_path: Path) -> None:
    """Layers that are run otherwise have rows of their own; densities that differ are a span."""
    cases = [(0, 0.1, "dense"), (1, 0.9, "gathered"), (2, 0.25, "dense")]
    rows = [
        MatrixRow(
            name=f"bert.encoder.layer.{layer}.output.dense", shape=(8, 8), pattern="unstructured",
            density=density, lowering=lowering, reason="why", flops_share=1.0,
        )
        for layer, density, lowering in cases
    ]  # fmt: skip

    _, found = matrices_table(rows, {"why": "a"}, every=False)

    assert [(row[1], row[4], row[5]) for row in found] == [
        ("0, 2", "0.100-0.250", "dense"),
        ("1", "0.900", "gathered"),
    ]


def test_a_broken_pattern_is_named(tmp_path: Path) -> None:
    """A checkpoint whose weights break its pattern is shown, with the matrix that does."""
    pattern = parse_pattern("2:4")
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=pattern)
    weights = load_file(checkpoint.weights)
    name = "bert.encoder.layer.1.output.dense"
    weights[f"{name}.weight"][0, :4] = 1.0
    save_file(weights, checkpoint.weights, metadata={"format": "pt"})
    save_description(replace(checkpoint, weights_sha256=sha256_of(checkpoint.weights)))

    result = inspect(tmp_path / "c")

    assert result.exit_code == 0
    assert f"is broken by {name}" in result.stdout


def test_what_was_left_dense_is_told(tmp_path: Path) -> None:
    """Excluded matrices have their own reason, and the pattern is said to hold on the others."""
    attention = "distilbert.transformer.layer.0.attention"
    tiny_checkpoint(
        tmp_path / "c",
        architecture="distilbert",
        pattern=parse_pattern("block:32x1"),
        goals={f"{attention}.q_lin": 0.0, f"{attention}.k_lin": 0.0},
    )

    shown = inspect(tmp_path / "c", "--all").stdout

    assert "the pattern holds on every matrix but the 2 left dense" in shown
    assert shown.count("dense: this matrix was not pruned") == 1
    assert "layer.0.attention.q_lin" in shown
    assert "transformer.layer" not in shown


def test_a_pattern_that_is_not_declared_is_told_apart(tmp_path: Path) -> None:
    """Without spd.json the same matrices are shown, and that their pattern was detected."""
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=parse_pattern("block:32x1"))
    declared = said_of(checkpoint.folder)
    (checkpoint.folder / SPD_FILE).unlink()

    detected = said_of(checkpoint.folder)

    assert detected["matrices"] == declared["matrices"]
    assert detected["kind"] == "checkpoint without spd.json"
    assert not any("detected" in note for note in declared["notes"])
    assert "zeros fill block:32x1" in inspect(checkpoint.folder).stdout
    assert "the pattern holds on every matrix" in inspect(checkpoint.folder).stdout


def test_measured_gains_stand_beside_density(tmp_path: Path, block_checkpoint: Checkpoint) -> None:
    """Of a tuned artefact the table shows each matrix's gain, and a line the network's."""
    words = ("--tune", "--batch", "1", "--seq", "8", "--threads", "1", "--seconds", "0.003")
    output = ("--output", str(tmp_path / "a"))
    CliRunner().invoke(cli, ["export", str(block_checkpoint.folder), *words, *output])
    manifest = open_artefact(tmp_path / "a").manifest

    shown = inspect(tmp_path / "a", "--all").stdout

    lines = {line.split()[0]: line for line in shown.splitlines() if line.startswith("layer.")}
    assert "density ┃ measured" in shown
    for row in manifest.matrices:
        (one,) = row.measured
        cells = [cell.strip() for cell in lines[row.name.removeprefix("bert.encoder.")].split("│")]
        assert cells[4] == f"{one.gain:.1f}x"
    assert f"over all dense: 1x8 {manifest.measured[0].gain:.1f}x" in shown
