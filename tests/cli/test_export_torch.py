"""``spd export --format torch`` as typed, and the verbs that take what it writes."""

import json
from pathlib import Path

import pytest

from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.patterns import Block
from tests.cli.running import run_in
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint and its torch artefact."""
    folder = tmp_path_factory.mktemp("typed")
    tiny_checkpoint(folder / "run", pattern=Block(rows=32, columns=1, sparsity=0.75))
    done = run_in(folder, "export run --format torch --precision fp16 --output artefact")
    assert done.exit_code == 0, done.stderr
    return folder


def test_it_says_what_it_wrote(place: Path) -> None:
    """Matrices, runtime, parity, and what to type next."""
    done = run_in(place, "export run --format torch --precision bf16 --output again --overwrite")

    assert done.exit_code == 0
    assert "12 gathered" in done.stdout
    assert "runs in   torch" in done.stdout
    assert "spd serve again" in done.stdout


def test_inspect_shows_how_it_runs(place: Path) -> None:
    """Each matrix with its reason, and the bytes that they take."""
    done = run_in(place, "inspect artefact")

    assert done.exit_code == 0
    assert "gathered" in done.stdout
    assert "block-sparse kernel: each group of 32 outputs reads only 25%" in done.stdout
    assert "embeddings 0.0 MB (word embeddings in fp16)" in done.stdout


@pytest.mark.parametrize("runtime", ["", " --runtime torch", " --runtime auto"])
def test_predict_runs_it(place: Path, runtime: str) -> None:
    """On the CPU too, and the answer is the checkpoint's."""
    done = run_in(place, f"predict artefact film{runtime}")
    wanted = run_in(place, "predict run film")

    assert done.exit_code == 0, done.stderr
    scores = (json.loads(one.stdout)["scores"]["positive"] for one in (done, wanted))
    assert next(scores) == pytest.approx(next(scores), abs=0.01)


def test_bench_measures_it(place: Path) -> None:
    """Against a dense artefact, naming what ran."""
    shapes = "--batch 1 --seq 8 --seconds 0.05 --rounds 2"
    dense = run_in(place, "export run --format torch --lowering dense --output dense")

    done = run_in(place, f"bench artefact --baseline dense {shapes} --output report")

    assert dense.exit_code == 0, dense.stderr
    assert done.exit_code == 0, done.stderr
    report = json.loads((place / "report" / "report.json").read_text())
    ran = {arm["name"]: arm["runtime"]["kernels"] for arm in report["arms"]}
    assert ran["artefact"] == "12 of 12 matrices by index_select and bmm"
    assert ran["dense"] == "all matrices dense"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--format torch --precision int8", "no int8"),
        ("--format torch --tune", "tuned on the GPU that serves it"),
        ("--format torch --tuning tuning.json", "--tuning does not go with --format torch"),
        ("--format torch --data data", "--data does not go with --format torch"),
        ("--format torch --runtime openvino", "cannot run a torch artefact"),
        ("--precision bf16", "--precision bf16 needs --format torch"),
        ("--runtime torch", "export with --format torch"),
        ("--format torch --lowering compact", "no matrix of run can be lowered as compact"),
    ],
)
def test_what_makes_no_sense_is_refused(place: Path, options: str, said: str) -> None:
    """In a line, and nothing is written."""
    done = run_in(place, f"export run {options} --output out")

    assert done.exit_code != 0
    assert said in " ".join(done.stderr.split())
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("predict artefact film --runtime onnxruntime", "export with --format onnx"),
        ("inspect artefact --measure", "only the operators of ONNX artefacts"),
        ("export artefact --output out", "exported artefact already"),
    ],
)
def test_other_verbs_refuse_what_they_cannot(place: Path, command: str, said: str) -> None:
    """With what to do instead."""
    done = run_in(place, command)

    assert done.exit_code == 1
    assert said in done.stderr


def test_a_dense_checkpoint_is_exported_too(dense_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """As the baseline of others; its manifest is printed as JSON where that is asked for."""
    done = run_in(tmp_path, f"export {dense_checkpoint.folder} --format torch --output out --json")

    assert done.exit_code == 0
    assert json.loads(done.stdout)["format"] == "torch"
