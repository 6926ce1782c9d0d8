"""``spd export`` on the command line: what it writes, what it says, and what it refuses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from spd_deploy.cli.main import cli
from spd_deploy.domain.artefact import open_artefact
from spd_deploy.domain.checkpoint import SPD_FILE, Checkpoint
from spd_deploy.domain.patterns import parse_pattern
from tests.tiny import tiny_checkpoint


def export(*words: object) -> Result:
    return CliRunner().invoke(cli, ["export", *map(str, words)])


def test_the_summary_says_what_was_made(tmp_path: Path, block_checkpoint: Checkpoint) -> None:
    """Pattern, lowerings, parity and the next command stand on standard output."""
    result = export(block_checkpoint.folder, "--output", tmp_path / "a")

    assert result.exit_code == 0
    assert "block:16x1: verified on the weights as stored" in result.stdout
    assert f"spd inspect {tmp_path / 'a'}" in result.stdout
    counts = [line for line in result.stdout.splitlines() if line.startswith("matrices")]
    assert sum(int(word) for word in counts[0].split() if word.isdigit()) == 12


def test_json_is_the_manifest(tmp_path: Path, dense_checkpoint: Checkpoint) -> None:
    """With --json a program reads on standard output what the manifest holds."""
    result = export(dense_checkpoint.folder, "--output", tmp_path / "a", "--json")

    value = json.loads(result.stdout)
    manifest = open_artefact(tmp_path / "a").manifest
    assert value.pop("artefact") == str(tmp_path / "a")
    assert value == json.loads(json.dumps(manifest.to_json()))


def test_overwrite_replaces_an_artefact(
    tmp_path: Path, dense_checkpoint: Checkpoint, block_checkpoint: Checkpoint
) -> None:
    """A second export needs --overwrite, and then the folder holds the second one alone."""
    first = export(dense_checkpoint.folder, "--output", tmp_path / "a")
    refused = export(block_checkpoint.folder, "--output", tmp_path / "a")
    second = export(block_checkpoint.folder, "--output", tmp_path / "a", "--overwrite")

    assert [first.exit_code, refused.exit_code, second.exit_code] == [0, 1, 0]
    assert "--overwrite" in refused.stderr
    assert open_artefact(tmp_path / "a").manifest.pattern == "block:16x1"


@pytest.mark.parametrize(
    "words", [("--format", "trt"), ("--format", "torch"), ("--precision", "bf16")], ids=" ".join
)
def test_what_is_named_for_later_is_refused(
    tmp_path: Path, dense_checkpoint: Checkpoint, words: tuple[str, str]
) -> None:
    """One line says that it is not there yet, and nothing is written."""
    result = export(dense_checkpoint.folder, "--output", tmp_path / "a", *words)

    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_detected_pattern_is_told(tmp_path: Path) -> None:
    """Export of a folder without spd.json says on standard error what it took the zeros for."""
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=parse_pattern("structured"))
    (checkpoint.folder / SPD_FILE).unlink()

    result = export(checkpoint.folder, "--output", tmp_path / "a")

    assert result.exit_code == 0
    assert "structured detected, not declared" in " ".join(result.stderr.split())
    assert "12 compact" in result.stdout
