"""``spd bench`` on real tiny artefacts, and its refusals in one line."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exporters.export import ExportRequest, artefact_from_checkpoint
from exporters.precision import Precision
from spd_deploy.benchmark.judge import judge
from spd_deploy.benchmark.report import read_report
from spd_deploy.cli.main import cli
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.patterns import NM
from tests.tiny import tiny_checkpoint

QUICK = ("--batch", "1,2", "--seq", "8", "--threads", "1", "--rounds", "2", "--seconds", "0.02")


@dataclass(frozen=True, kw_only=True, slots=True)
class Folders:
    """What the tests measure."""

    block: Path
    nm: Path
    dense_checkpoint: Path
    block_checkpoint: Checkpoint


@pytest.fixture(scope="module")
def folders(
    tmp_path_factory: pytest.TempPathFactory,
    dense_checkpoint: Checkpoint,
    block_checkpoint: Checkpoint,
) -> Folders:
    """A block and a 2:4 artefact, and a dense checkpoint."""
    folder = tmp_path_factory.mktemp("bench")
    nm = tiny_checkpoint(folder / "checkpoint", pattern=NM(n=2, m=4))
    artefact_from_checkpoint(block_checkpoint, folder / "block")
    artefact_from_checkpoint(nm, folder / "nm")
    return Folders(
        block=folder / "block",
        nm=folder / "nm",
        dense_checkpoint=dense_checkpoint.folder,
        block_checkpoint=block_checkpoint,
    )


def spd_bench(*words: str | Path) -> Result:
    """Run the command."""
    return CliRunner().invoke(cli, ["bench", *map(str, words)])


def refusal(*words: str | Path) -> str:
    """The one line in which the command refuses, without a traceback."""
    result = spd_bench(*words)
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith(("Usage", "Try"))]
    told = [line for line in lines if line.startswith(("spd: ", "Error: "))]
    assert len(told) == 1, result.stderr
    return told[0]


@pytest.fixture(scope="module")
def measured(
    folders: Folders, tmp_path_factory: pytest.TempPathFactory, weighed: None
) -> tuple[Result, Path]:
    """A run of both artefacts against the checkpoint, and its report's folder."""
    output = tmp_path_factory.mktemp("out") / "report"
    words: Sequence[str | Path] = (
        folders.block, folders.nm, "--baseline", folders.dense_checkpoint, "--output", output,
    )  # fmt: skip
    return spd_bench(*words, *QUICK), output


def test_a_run_prints_tables_and_caveats(measured: tuple[Result, Path]) -> None:
    """Headlines, latency, sizes, caveats and the report's place are told."""
    result, output = measured

    assert result.exit_code == 0, result.output
    for said in ("Latency", "Size and memory, MB", "caveat: ", "1x8", "2x8", "baseline"):
        assert said in result.stdout
    assert result.stdout.splitlines()[-1] == f"report: {output / 'report.html'}"


def test_an_arm_without_a_kernel_says_why(measured: tuple[Result, Path]) -> None:
    """The 2:4 arm gives the exporter's reason, on the terminal and in the report."""
    result, output = measured
    arm = read_report(output / "report.json").arm("nm")

    assert arm.runs_dense
    if "Why: all" in result.stdout:  # else this run called it faster by chance
        assert arm.lowered[0].reason in " ".join(result.stdout.split())
    assert arm.lowered[0].reason in (output / "report.html").read_text(encoding="utf-8")


def test_the_report_holds_every_sample(measured: tuple[Result, Path]) -> None:
    """Three arms, two shapes and two rounds are read back and judged as they were written."""
    _, output = measured
    report = read_report(output / "report.json")
    value = json.loads((output / "report.json").read_text(encoding="utf-8"))

    assert [arm.name for arm in report.arms] == [report.baseline, "block", "nm"]
    assert len(report.series) == 3 * 2 * 2
    assert json.loads(json.dumps(judge(report).to_json()["rows"])) == value["judgement"]["rows"]


def test_the_report_names_no_folder_of_this_machine(
    measured: tuple[Result, Path], folders: Folders
) -> None:
    """Neither the JSON nor the page holds a path."""
    _, output = measured

    for name in ("report.json", "report.html"):
        text = (output / name).read_text(encoding="utf-8")
        for path in (folders.block.parent, folders.dense_checkpoint.parent, Path.cwd()):
            assert f"{path}/" not in text


def test_json_is_all_that_is_printed(folders: Folders, tmp_path: Path) -> None:
    """With --json standard output is one document, here without a baseline."""
    result = spd_bench(folders.block, "--output", tmp_path / "r", "--json", *QUICK)
    value = json.loads(result.stdout)

    assert result.exit_code == 0
    assert value["baseline"] is None
    assert {row["speed_up"] for row in value["rows"]} == {None}
    assert "no speed-up is claimed" in value["headlines"][0]
    assert Path(value["report"]).is_file()


def test_a_profile_tells_where_sparse_arms_lose(folders: Folders, tmp_path: Path) -> None:
    """With --profile each sparse arm is held against its dense baseline at every shape."""
    result = spd_bench(folders.block, "--output", tmp_path / "r", "--profile", *QUICK)
    report = read_report(tmp_path / "r" / "report.json")

    assert result.exit_code == 0, result.output
    assert [(p.arm, str(p.shape)) for p in report.layers] == [("block", "1x8"), ("block", "2x8")]
    assert result.stdout.count("of its dense baseline at") == 2
    assert (tmp_path / "r" / "layers-1.png").is_file()


def test_a_profile_says_what_ran_and_that_batches_were_whole(
    folders: Folders, tmp_path: Path
) -> None:
    """The terminal names ONNX Runtime and fp32, and that serving shares rows out among threads."""
    words = ("--batch", "8", "--seq", "8", "--threads", "2", "--rounds", "2", "--seconds", "0.02")

    result = spd_bench(folders.block, "--output", tmp_path / "r", "--profile", *words)

    assert result.exit_code == 0, result.output
    assert re.search(r"dense baseline at 8x8 in onnxruntime [\d.]+, fp32: ", result.stdout)
    assert "by the row, so a real run is faster" in result.stdout


def test_only_fp32_arms_are_profiled(folders: Folders, tmp_path: Path) -> None:
    """An fp16 arm is measured beside an fp32 one, but its layers have no dense baseline."""
    half = tmp_path / "half"
    artefact_from_checkpoint(
        folders.block_checkpoint, half, ExportRequest(precision=Precision.FP16)
    )

    result = spd_bench(half, folders.block, "--output", tmp_path / "r", "--profile", *QUICK)
    report = read_report(tmp_path / "r" / "report.json")

    assert result.exit_code == 0, result.output
    assert {arm.name for arm in report.arms} == {"half", "block"}
    assert {profile.arm for profile in report.layers} == {"block"}
    assert list(report.unprofiled) == ["half"]
    assert "half is not profiled: it is fp16, and the dense baseline" in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--batch", "0", "'0' holds a size below 1"),
        ("--batch", "1,,8", "is not a list of whole numbers such as 1,8"),
        ("--batch", "-1", "is not a list of whole numbers"),
        ("--batch", "1.5", "is not a list of whole numbers"),
        ("--batch", "9" * 5000, "holds a size above 65536"),
        ("--seq", "", "is not a list of whole numbers"),
        ("--seq", "²", "is not a list of whole numbers"),
        ("--rounds", "1", "is not in the range"),
        ("--seconds", "0", "is not in the range"),
        ("--seconds", "nan", "nan is not a length of time"),
        ("--threads", "0", "is not in the range"),
        ("--device", "tpu", "is not one of"),
    ],
    ids=lambda text: text[:12],
)
def test_a_bad_number_is_refused(
    option: str, value: str, said: str, folders: Folders, tmp_path: Path
) -> None:
    """The option and what is wrong with it are named."""
    line = refusal(folders.block, "--output", tmp_path / "r", option, value)

    assert option in line
    assert said in line


def test_texts_longer_than_the_artefact_takes_are_refused(folders: Folders, tmp_path: Path) -> None:
    """The longest length that can be measured is named, before anything is exported."""
    line = refusal(
        folders.block, "--baseline", folders.dense_checkpoint, "--output", tmp_path / "r",
        "--seq", "8,33",
    )  # fmt: skip

    assert line == (
        "spd: block cuts its texts at 32 tokens; got sequences of 33; measure --seq 32 or less"
    )


def test_existing_output_is_refused(folders: Folders, tmp_path: Path) -> None:
    """What is there stays, and with --overwrite only an earlier report goes."""
    (tmp_path / "thesis.tex").write_text("mine")

    assert "already exists" in refusal(folders.block, "--output", tmp_path)
    assert "not an earlier report" in refusal(folders.block, "--output", tmp_path, "--overwrite")
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_a_missing_artefact_is_named(folders: Folders, tmp_path: Path) -> None:
    """So are a missing baseline, and a checkpoint where an artefact is wanted."""
    out = ("--output", tmp_path / "r")
    gone = tmp_path / "gone"

    assert f"no such artefact folder; got {gone}" in refusal(gone, *out)
    assert "no such folder" in refusal(folders.block, "--baseline", gone, *out, *QUICK)
    assert "spd export " in refusal(folders.dense_checkpoint, *out)


# ONNX Runtime's own warning, which comes before our refusal.
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDA")
def test_a_device_that_is_not_there_is_refused(folders: Folders, tmp_path: Path) -> None:
    """Nothing is measured on the CPU when CUDA was asked for."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA in it")
    line = refusal(folders.block, "--output", tmp_path / "r", "--device", "cuda", "--seq", "8")

    assert "cuda" in line.lower()
    assert not (tmp_path / "r").exists()


def test_missing_words_are_asked_for(folders: Folders, tmp_path: Path) -> None:
    """Neither artefact nor output may be left out."""
    assert "Missing argument" in refusal("--output", tmp_path / "r")
    assert "'--output'" in refusal(folders.block)


def test_help_shows_an_example() -> None:
    """The command explains itself without loading anything heavy."""
    result = spd_bench("--help")

    assert result.exit_code == 0
    assert "spd bench out/sparse --baseline out/teacher --output out/report" in result.stdout


def test_dense_forms_are_a_matter_of_gpus(folders: Folders, tmp_path: Path) -> None:
    """``--dense`` is refused on a CPU, without a checkpoint, and with a name that is none."""
    output = ("--output", tmp_path / "r", "--seq", "8")
    on_gpu = (folders.block, *output, "--device", "cuda")

    assert "goes with --device cuda" in refusal(folders.block, *output, "--dense", "torch-eager")
    assert "with a checkpoint" in refusal(*on_gpu, "--dense", "torch-eager")
    artefact = ("--baseline", folders.nm, "--dense", "torch-eager")
    assert "with a checkpoint" in refusal(*on_gpu, *artefact)
    assert "no dense arm" in refusal(
        *on_gpu, "--baseline", folders.dense_checkpoint, "--dense", "fast"
    )
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("words", [("--profile",), ("--threads", "2")])
def test_what_is_of_a_cpu_is_refused_on_a_gpu(
    words: tuple[str, ...], folders: Folders, tmp_path: Path
) -> None:
    """Before anything is opened or measured, and nothing is written."""
    on_gpu = ("--output", tmp_path / "r", "--device", "cuda")

    line = refusal(folders.block, *on_gpu, *words)

    assert words[0] in line and "--device cpu" in line
    assert not (tmp_path / "r").exists()
