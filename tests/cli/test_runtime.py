"""``--runtime`` on the command line: both runtimes answer alike, and say which one ran."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exporters.export import artefact_from_checkpoint
from spd_deploy.benchmark.report import read_report
from spd_deploy.cli.main import cli
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.runtime_choice import Runtime
from spd_deploy.sessions.open import BF16_TOLERANCE
from spd_deploy.sessions.openvino import openvino_core, precisions_of
from tests.portable import with_portable

QUICK = ("--batch", "1", "--seq", "8", "--threads", "1", "--rounds", "2", "--seconds", "0.02")
SST2 = "sentence\tlabel\na great film\t1\nthe plot is bad\t0\nI love it , it is great !\t1\n"


@pytest.fixture(scope="module")
def artefact(dense_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """A dense artefact that OpenVINO reads too, for single texts."""
    folder = tmp_path_factory.mktemp("runtime")
    return with_portable(artefact_from_checkpoint(dense_checkpoint, folder / "plain"), folder / "a")


def spd(*words: str | Path) -> Result:
    """Run a command that succeeds."""
    result = CliRunner().invoke(cli, list(map(str, words)))
    assert result.exit_code == 0, result.output
    return result


def test_both_runtimes_predict_alike(artefact: Artefact, tmp_path: Path) -> None:
    """The same labels and scores, and a word on which one gave them."""
    texts = ("a great film", "I hate this ending", "never")
    scores = {}
    for name in ("onnxruntime", "openvino"):
        output = tmp_path / f"{name}.jsonl"
        result = spd("predict", artefact.folder, *texts, "--runtime", name, "--output", output)
        assert f"3 answers by {name} " in result.stderr
        lines = output.read_text(encoding="utf-8").splitlines()
        scores[name] = [json.loads(line)["scores"] for line in lines]

    for one, other in zip(scores["onnxruntime"], scores["openvino"], strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_a_score_says_what_ran(artefact: Artefact, tmp_path: Path) -> None:
    """The JSON names the runtime, its version and precision; the scores are those of the other."""
    (tmp_path / "dev.tsv").write_text(SST2, encoding="utf-8")
    found = {}
    for name in ("auto", "openvino"):
        words = ("--data", tmp_path, "--runtime", name, "--json")
        found[name] = json.loads(spd("evaluate", artefact.folder, *words).stdout)

    assert found["auto"]["runtime"]["runtime"] == "onnxruntime"
    assert found["openvino"]["runtime"]["runtime"] == "openvino"
    assert found["openvino"]["runtime"]["precision"] == "fp32"
    assert found["openvino"]["scores"] == found["auto"]["scores"]


@pytest.mark.usefixtures("weighed")
def test_one_artefact_is_measured_in_several_runtimes(artefact: Artefact, tmp_path: Path) -> None:
    """Each is an arm, compared with the baseline in the first, with its parity as measured."""
    asked = ["onnxruntime", "openvino"]
    if "bf16" in precisions_of(openvino_core()):
        asked.append("openvino:bf16")
    options = [word for name in asked for word in ("--runtime", name)]
    words = (artefact.folder, "--baseline", artefact.folder, "--output", tmp_path / "r")
    result = spd("bench", *words, *options, *QUICK)

    report = read_report(tmp_path / "r" / "report.json")
    names = [f"{arm} ({name})" for arm in ("a", "a-2") for name in asked]
    assert [arm.name for arm in report.arms] == names
    assert report.baseline == "a (onnxruntime)"
    assert "run by onnxruntime " in result.stdout
    assert "openvino 2" in result.stdout
    for arm in report.arms:
        rounded = arm.precision == "bf16"
        assert rounded == arm.name.endswith("(openvino:bf16)")
        assert (1e-4 if rounded else 0) < arm.parity < (BF16_TOLERANCE if rounded else 1e-4)
    assert {arm.memory is not None for arm in report.arms} == {True}


def test_openvino_is_not_measured_on_a_gpu(artefact: Artefact, tmp_path: Path) -> None:
    """Asked for both, the command says that they do not go together, and writes no report."""
    words = ("--runtime", "openvino", "--device", "cuda", "--seq", "8", "--output", tmp_path / "r")

    result = CliRunner().invoke(cli, list(map(str, ("bench", artefact.folder, *words))))

    assert "OpenVINO runs on the CPU only; got device cuda" in result.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("own", ["onnxruntime", "openvino"])
def test_inspect_tells_the_runtime_of_the_manifest(
    own: Runtime, artefact: Artefact, tmp_path: Path
) -> None:
    """What --runtime auto would take is in the first line."""
    folder = with_portable(artefact, tmp_path / "a", runtime=own).folder

    assert f"onnx artefact, fp32, for {own}" in spd("inspect", folder).stdout.splitlines()[0]
