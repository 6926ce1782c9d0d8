"""``spd map`` on real tiny products, and its refusals in one line."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exporters.export import artefact_from_checkpoint
from spd_deploy.benchmark.breakeven.map_records import read_map, text_from_map
from spd_deploy.cli.main import cli
from spd_deploy.domain.versions import version_of
from tests.tiny import tiny_checkpoint

QUICK = ("--threads", "1", "--rounds", "2", "--seconds", "0.004")
SMALL = ("--shape", "32x64", "--tokens", "8,4", "--sparsity", "0.5,0.75", *QUICK)


def spd_map(*words: object) -> Result:
    return CliRunner().invoke(cli, ["map", *map(str, words)])


def test_a_map_has_every_product_asked_for(tmp_path: Path) -> None:
    """File, picture and table hold each pattern, sparsity, length, runtime and precision."""
    patterns = ("--pattern", "block:16x1", "--pattern", "structured", "--pattern", "2:4")

    result = spd_map(*SMALL, *patterns, "--output", tmp_path / "m")

    assert result.exit_code == 0, result.output
    found = read_map(tmp_path / "m" / "map.json")
    assert found.tokens == (4, 8)
    assert [str(row) for row in found.rows] == [
        f"{row}, {runtime}, {precision}"
        for runtime in ("onnxruntime", "openvino")
        for precision in ("fp32", "int8")
        for row in (
            "block:16x1 at 50%", "block:16x1 at 75%", "structured at 50%", "structured at 75%",
            "2:4 at 50%",
        )
    ]  # fmt: skip
    for cell in found.cells:
        assert len(cell.dense_s) == 2
        assert len(cell.sparse_s) == (0 if cell.pattern == "2:4" else 2)
    assert (found.settings.threads, found.model) == (1, None)
    assert found.runtimes == {name: version_of(name) for name in ("onnxruntime", "openvino")}
    assert f"openvino {found.runtimes['openvino']}, fp32 and int8" in result.stdout
    assert (tmp_path / "m" / "map.png").read_bytes().startswith(b"\x89PNG")
    for row in found.rows:
        assert any(line.startswith(str(row)) for line in result.stdout.splitlines())
    (told,) = [line for line in result.stdout.splitlines() if line.startswith("2:4: nothing")]
    assert "ONNX Runtime has no" in told
    assert "OpenVINO has no" in told
    assert "On this machine, start with " in result.stdout


@pytest.mark.parametrize("kind", ["checkpoint", "artefact"])
def test_a_folder_gives_its_own_sizes(tmp_path: Path, kind: str) -> None:
    """A checkpoint's and an artefact's matrices are measured, under the folder's name."""
    checkpoint = tiny_checkpoint(tmp_path / "mine", intermediate=96)
    folder = checkpoint.folder
    if kind == "artefact":
        folder = artefact_from_checkpoint(checkpoint, tmp_path / "mine-exported").folder
    words = ("--tokens", "4", "--sparsity", "0.5", "--runtime", "onnxruntime", *QUICK)

    done = spd_map("--model", folder, *words, "--pattern", "structured", "--output", tmp_path / "m")

    assert done.exit_code == 0, done.output
    found = read_map(tmp_path / "m" / "map.json")
    hidden = checkpoint.encoder.hidden
    assert found.model == folder.name
    assert {(part.shape, part.count) for part in found.parts} == {
        ((hidden, hidden), 4),
        ((96, hidden), 1),
        ((hidden, 96), 1),
    }


def test_a_runtime_that_is_named_is_measured_alone(tmp_path: Path) -> None:
    """Its name and version stand in the file, and no other's."""
    words = ("--pattern", "structured", "--runtime", "openvino", "--output", tmp_path / "m")

    assert spd_map(*SMALL, *words).exit_code == 0
    found = read_map(tmp_path / "m" / "map.json")
    assert list(found.runtimes) == ["openvino"]
    assert {row.runtime for row in found.rows} == {"openvino"}


def test_help_says_what_runs_the_products() -> None:
    """Both runtimes are named, and how one is chosen."""
    said = " ".join(spd_map("--help").stdout.split())

    assert "in ONNX Runtime and, where it is installed, in OpenVINO" in said
    assert "--runtime [onnxruntime|openvino]" in said


def test_json_is_the_file(tmp_path: Path) -> None:
    """With --json a program reads on standard output what the file holds."""
    words = (*SMALL, "--pattern", "structured", "--json")
    first = spd_map(*words, "--output", tmp_path / "m")
    refused = spd_map(*words, "--output", tmp_path / "m")
    second = spd_map(*words, "--output", tmp_path / "m", "--overwrite")

    assert [first.exit_code, refused.exit_code, second.exit_code] == [0, 1, 0]
    assert "--overwrite" in refused.stderr
    assert second.stdout == (tmp_path / "m" / "map.json").read_text()
    assert second.stdout == text_from_map(read_map(tmp_path / "m" / "map.json"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "base", "--shape", "8x8"), "leave one of them out"),
        (("--model", "no/such"), "no such size of model, and no such folder"),
        (("--shape", "8"), "outputs x inputs"),
        (("--shape", "0x8"), "outputs x inputs"),
        (("--shape", "70000x8"), "up to 65536"),
        (("--sparsity", "0.5,half"), "list of sparsities"),
        (("--sparsity", "nan"), "strictly between 0 and 1"),
        (("--sparsity", "1"), "strictly between 0 and 1"),
        (("--precision", "fp16"), "'fp16' is not one of"),
        (("--precision", "int8", "--device", "cuda"), "a GPU's map is in fp16"),
        (("--runtime", "tensorrt"), "'tensorrt' is not one of"),
        (("--runtime", "openvino", "--device", "cuda"), "--runtime goes with --device cpu"),
        (("--pattern", "diagonal"), "unknown pattern"),
        (("--pattern", "block:7x1"), "does not divide"),
        (("--tokens", "0"), "below 1"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_mapped_is_refused(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """Nonsense is an error in words, before anything is measured or written."""
    result = spd_map(*words, "--output", tmp_path / "m")

    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())


def test_what_is_no_map_is_not_replaced(tmp_path: Path) -> None:
    """--overwrite replaces an earlier map, never a folder with something else in it."""
    (tmp_path / "thesis").write_text("mine")

    result = spd_map(*SMALL, "--output", tmp_path, "--overwrite")

    assert result.exit_code == 1
    assert "not an earlier map" in result.stderr
    assert (tmp_path / "thesis").read_text() == "mine"
