"""``spd inspect --measure`` on real tiny artefacts: what it says, and what it refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from exporters.export import artefact_from_checkpoint
from spd_deploy.cli.main import cli
from spd_deploy.domain.artefact import open_artefact, save_manifest
from spd_deploy.domain.patterns import Block, Pattern, Structured, Unstructured
from tests.tiny import tiny_checkpoint

QUICK = ("--measure", "--seq", "8", "--threads", "1", "--seconds", "0.02")
ROLES = ("query", "key", "value", "attention output", "intermediate", "output")
PATTERNS: dict[str, Pattern | None] = {
    "dense": None,
    "block": Block(rows=32, columns=1, sparsity=0.75),
    "structured": Structured(sparsity=0.5),
    "unstructured": Unstructured(sparsity=0.9),
}


def inspect(*words: object) -> Result:
    return CliRunner().invoke(cli, ["inspect", *map(str, words)])


@pytest.fixture(scope="module", params=PATTERNS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint ``c`` and its artefact ``a``."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = tiny_checkpoint(folder / "c", pattern=PATTERNS[request.param])
    artefact_from_checkpoint(checkpoint, folder / "a")
    return folder


def test_a_row_a_role_and_the_way_from_total_to_total(folder: Path) -> None:
    """All six roles, the reasons, the dense baseline and the model stand in what is printed."""
    result = inspect(folder / "a", *QUICK)
    rows = open_artefact(folder / "a").manifest.matrices

    assert result.exit_code == 0, result.output
    lines = [line.partition("┃")[0].partition("│")[0].strip() for line in result.stdout.split("\n")]
    assert [line for line in lines if line in ROLES] == list(ROLES)
    assert result.stdout.count("of its dense baseline at 1x8 in onnxruntime ") == 1
    assert all(f"  {row.reason}\n" in result.stdout for row in rows)
    names = [line.split("  ")[0] for line in result.stdout.split("\n")]
    way = names[names.index("dense baseline") :]
    assert way.index("products") < way.index("attention") < way.index("runtime") < way.index("a")


def test_with_all_there_is_a_row_a_matrix(folder: Path) -> None:
    """--all tells the layers apart."""
    result = inspect(folder / "a", *QUICK, "--all")

    rows = [f"{layer} {role}" for layer in range(2) for role in ROLES]
    found = [line.partition("│")[0].strip() for line in result.stdout.split("\n")]
    assert [line for line in found if line in rows] == rows


def test_json_holds_every_number(folder: Path) -> None:
    """Steps add up to both totals, matrices to their steps, and promises are of the densities."""
    said: dict[str, Any] = json.loads(inspect(folder / "a", *QUICK, "--json").stdout)
    measured = said["measured"]

    for side in ("dense_s", "sparse_s"):
        assert sum(s[side] for s in measured["steps"]) == pytest.approx(measured[side])
        inner = sum(s[side] for s in measured["steps"][:3])
        assert sum(m[side] for m in measured["matrices"]) == pytest.approx(inner)
    assert [m["name"] for m in measured["matrices"]] == [m["name"] for m in said["matrices"]]
    for matrix, row in zip(measured["matrices"], said["matrices"], strict=True):
        if matrix["dense_s"]:  # else it took no longer than timing it does
            assert matrix["promise"] == pytest.approx(1 / row["density"])
        assert matrix["verdict"]


def test_the_default_length_is_what_the_model_reads(folder: Path) -> None:
    """A model that cuts its texts at 32 tokens is measured there, not at 128."""
    said = json.loads(inspect(folder / "a", "--measure", "--seconds", "0.02", "--json").stdout)

    assert said["measured"]["shape"] == "1x32"


def test_a_checkpoint_is_to_be_exported_first(folder: Path) -> None:
    """Nothing of a checkpoint can be measured; the command that helps is named."""
    result = inspect(folder / "c", *QUICK)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "not an exported artefact" in result.stderr
    assert "spd export CHECKPOINT --format onnx" in result.stderr


def test_another_format_is_refused(folder: Path, tmp_path: Path) -> None:
    """The format is named, and which one can be measured."""
    checkpoint = tiny_checkpoint(tmp_path / "c")
    artefact = artefact_from_checkpoint(checkpoint, tmp_path / "a")
    save_manifest(tmp_path / "a", replace(artefact.manifest, format="trt"))

    result = inspect(tmp_path / "a", *QUICK)

    assert result.exit_code == 1
    assert "format 'trt'" in result.stderr
    assert "--format onnx" in result.stderr


def test_an_artefact_for_another_runtime_is_told_what_ran_it(folder: Path, tmp_path: Path) -> None:
    """What is served in OpenVINO is profiled in ONNX Runtime, and both are named."""
    shutil.copytree(folder / "a", tmp_path / "a")
    manifest = open_artefact(tmp_path / "a").manifest
    save_manifest(tmp_path / "a", replace(manifest, runtime="openvino"))

    said = inspect(tmp_path / "a", *QUICK).stdout

    assert "it is served with openvino, fp32, which was not profiled" in said
    assert "; onnxruntime " in next(line for line in said.split("\n") if "Matrices" in line)


def test_a_batch_is_timed_whole_and_said_to_be(folder: Path) -> None:
    """That is printed for rows that serving would share out among threads, not for one."""
    words = ("--measure", "--seq", "8", "--threads", "2", "--seconds", "0.02", "--batch")

    assert "by the row, so a real run is faster" in inspect(folder / "a", *words, 8).stdout
    assert "by the row" not in inspect(folder / "a", *words, 1).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--batch", "2"), "--batch goes with --measure"),
        (("--seq", "8"), "--seq goes with --measure"),
        (("--threads", "1"), "--threads goes with --measure"),
        (("--seconds", "1"), "--seconds goes with --measure"),
        (("--measure", "--batch", "0"), "'--batch'"),
        (("--measure", "--seconds", "nan"), "not a length of time"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    words: tuple[str, ...], said: str, folder: Path
) -> None:
    """What only --measure has is refused without it, and so are numbers that measure nothing."""
    result = inspect(folder / "a", *words)

    assert result.exit_code == 2
    assert said in result.stderr


def test_texts_longer_than_the_model_reads_are_refused(folder: Path) -> None:
    """The longest length that can be measured is named."""
    result = inspect(folder / "a", "--measure", "--seq", "33")

    assert result.exit_code == 1
    assert "measure --seq 32 or less" in result.stderr
