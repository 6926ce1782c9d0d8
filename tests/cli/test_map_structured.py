"""``spd map --structured`` on a tiny model, and its refusals in one line."""

from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from click.testing import CliRunner, Result

from spd_deploy.cli.main import cli
from spd_deploy.cli.map_structured import show_latency_table
from spd_deploy.domain.latency_table import read_latency_table
from spd_deploy.domain.part_times import TimedStructures
from spd_deploy.domain.shapes import Shape
from tests.tiny import tiny_model
from tests.train.latency import latency_table

QUICK = ("--threads", "1", "--rounds", "2", "--seconds", "0.002")


def structured(*words: object) -> Result:
    return CliRunner().invoke(cli, ["map", "--structured", *map(str, words), *QUICK])


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "int8")],
)
def test_the_table_is_of_what_was_asked_for(tmp_path: Path, runtime: str, precision: str) -> None:
    """File and output name runtime, precision, threads, shapes and the folder's sizes."""
    folder = tiny_model(tmp_path / "m", heads=2, intermediate=32)
    file = tmp_path / "table.json"
    how = ("--runtime", runtime, "--precision", precision, "--at", "1x8,4x16")

    result = structured("--model", folder, *how, "--output", file)

    assert result.exit_code == 0, result.output
    table = read_latency_table(file)
    assert (table.runtime, table.precision, table.threads) == (runtime, precision, 1)
    assert table.shapes == (Shape(batch=1, seq=8), Shape(batch=4, seq=16))
    assert str(table.sizes) == "2 layers of 64, 2 heads, 32 neurons"
    assert table.times[0].inner.attention.kept == (0, 1, 2)
    assert table.times[0].inner.feed_forward.kept == (0, 16, 32)
    assert 1 <= len(table.checks) <= 4
    assert f"1 thread, {runtime}, {precision}; {table.sizes}" in result.stdout
    assert "No structured model of these sizes is more than" in result.stdout
    doubtful = bool(table.errors()) and median(table.errors()) > 0.1
    assert ("next: spd train --speedup 3 --latency-table " in result.stdout) == (not doubtful)
    assert ("Do not train with this table" in result.stdout) == doubtful


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--at", "8"), "is not rows x tokens such as 8x128"),
        (("--at", "0x8"), "is not rows x tokens such as 8x128"),
        (("--at", "1x4096"), "the model has positions for 512 tokens"),
        (("--tokens", "8"), "--tokens does not go with --structured"),
        (("--pattern", "2:4"), "--pattern does not go with --structured"),
        (("--device", "cuda"), "--structured times networks on the CPU"),
        (("--precision", "fp32", "--precision", "int8"), "one --runtime and one --precision"),
        (("--precision", "bf16"), "use --runtime openvino"),
        (("--model", "nowhere"), "no such size of model, and no such folder"),
    ],
)
def test_what_it_does_not_take(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """A wrong option is refused in a line, before anything is timed or written."""
    model = () if "--model" in words else ("--model", "minilm")

    result = structured(*model, *words, "--output", tmp_path / "t.json")

    assert result.exit_code in (1, 2)
    assert said in result.output
    assert not (tmp_path / "t.json").exists()


def test_a_file_is_not_replaced_unasked(tmp_path: Path) -> None:
    """What is there is kept; a folder is never replaced by a table."""
    (tmp_path / "t.json").write_text("mine")

    result = structured("--model", "minilm", "--output", tmp_path / "t.json")
    on_folder = structured("--model", "minilm", "--overwrite", "--output", tmp_path)

    assert "already exists" in result.output
    assert "is a folder" in on_folder.output
    assert (tmp_path / "t.json").read_text() == "mine"


def test_its_options_do_not_go_with_the_other_map(tmp_path: Path) -> None:
    """Without --structured there are no shapes of batches, and no bf16."""
    for words in (("--at", "8x8"), ("--precision", "bf16")):
        result = CliRunner().invoke(cli, ["map", *words, "--output", str(tmp_path / "m")])

        assert result.exit_code == 2
        assert "go with --structured" in result.output


@pytest.mark.parametrize(("off_by", "advice"), [(1.02, "next: "), (1.5, "Do not train with")])
def test_a_table_that_predicts_badly_is_not_recommended(
    off_by: float, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line says whether to train with a table, by the error on its own checks."""
    table = latency_table()
    dense = table.dense
    seconds = tuple((off_by * times.seconds(dense),) * 2 for times in table.times)
    checked = replace(table, checks=(TimedStructures(structures=dense, seconds=seconds),))

    show_latency_table(checked, Path("table.json"))

    assert capsys.readouterr().out.splitlines()[-1].startswith(advice)
