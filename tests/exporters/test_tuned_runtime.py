"""The runtime that an export is tuned to: the fastest of those whose accuracy is allowed."""

import os
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result

from exporters.autotune.select_runtime import (
    fastest_runtime,
    select_fastest_runtime,
    select_named_runtime,
)
from exporters.autotune.tune import TuningPlan
from exporters.autotune.tuning import TUNING_FILE, read_tuning
from exporters.export import artefact_from_checkpoint
from exporters.precision import CalibrationSet, Precision
from spd_deploy.cli.main import cli
from spd_deploy.domain.artefact import RuntimeTiming, hashes_of, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import VerificationFailed
from spd_deploy.domain.patterns import parse_pattern
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from spd_deploy.domain.shapes import Shape
from spd_deploy.sessions.onnxruntime import PORTABLE_FILE
from spd_deploy.sessions.open import difference_between, open_path
from spd_deploy.sessions.openvino import openvino_core, precisions_of
from spd_deploy.sessions.protocol import Session
from spd_deploy.timing.host_clock import TimingSettings
from tests.cli.user_folder import mrpc_files
from tests.tiny import tiny_checkpoint

QUICK = ("--tune", "--batch", "1,2", "--seq", "8", "--threads", "1", "--seconds", "0.003")

PLAN = TuningPlan(
    shapes=(Shape(batch=1, seq=8),), threads=1, machine="m", timing=TimingSettings(seconds=0.01)
)


@pytest.fixture(scope="module")
def mrpc(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path]:
    folder = tmp_path_factory.mktemp("tuned")
    mrpc_files(folder / "MRPC")
    return tiny_checkpoint(folder / "c", task="mrpc"), folder / "MRPC"


def export(checkpoint: Checkpoint, output: Path, *words: object) -> Result:
    line = ["export", checkpoint.folder, "--output", output, *words]
    return CliRunner().invoke(cli, [str(word) for word in line])


def test_the_fastest_is_that_of_the_least_mean_time() -> None:
    """Twice as fast at one shape and half as fast at another is a tie, and the first is taken."""
    slow = RuntimeTiming(runtime="onnxruntime", seconds=(0.2, 0.2))
    quick = RuntimeTiming(runtime="openvino", seconds=(0.1, 0.3))

    assert fastest_runtime((slow, quick)) == "openvino"
    assert (
        fastest_runtime((slow, RuntimeTiming(runtime="openvino", seconds=(0.195, 0.195))))
        == "onnxruntime"
    )
    assert (
        fastest_runtime((slow, RuntimeTiming(runtime="openvino", seconds=(0.1, 0.4))))
        == "onnxruntime"
    )


def test_without_labels_no_runtime_may_round(tmp_path: Path, mrpc: tuple[Checkpoint, Path]) -> None:
    """Both runtimes are timed in fp32 at each shape, and the manifest names the faster."""
    result = export(mrpc[0], tmp_path / "a", *QUICK)

    assert result.exit_code == 0, result.output
    manifest = open_artefact(tmp_path / "a").manifest
    assert [one.runtime for one in manifest.runtime_timings] == ["onnxruntime", "openvino"]
    assert manifest.timed_shapes == ("1x8", "2x8")
    assert all(len(one.seconds) == 2 for one in manifest.runtime_timings)
    assert str(manifest.runtime_choice) == fastest_runtime(manifest.runtime_timings)
    assert f"runs in   {manifest.runtime_choice}: ms at 1x8, 2x8" in result.stdout
    with open_path(tmp_path / "a").session as session:
        assert session.description.runtime == manifest.runtime


def test_with_labels_bf16_is_judged_and_timed(
    tmp_path: Path, mrpc: tuple[Checkpoint, Path]
) -> None:
    """OpenVINO in bf16 takes part where its accuracy was measured to be allowed."""
    if "bf16" not in precisions_of(openvino_core()):
        pytest.skip("this CPU has no bf16 for OpenVINO")

    export(mrpc[0], tmp_path / "a", *QUICK, "--data", mrpc[1], "--max-drop", "100")

    ran = [one.runtime for one in open_artefact(tmp_path / "a").manifest.runtime_timings]
    assert ran == ["onnxruntime", "openvino", "openvino:bf16"]


def test_a_runtime_that_is_asked_for_is_taken(
    tmp_path: Path, mrpc: tuple[Checkpoint, Path]
) -> None:
    """Nothing is timed; the artefact opens in the runtime and precision that were named."""
    if "bf16" not in precisions_of(openvino_core()):
        pytest.skip("this CPU has no bf16 for OpenVINO")

    export(mrpc[0], tmp_path / "a", "--runtime", "openvino:bf16")

    manifest = open_artefact(tmp_path / "a").manifest
    assert (manifest.runtime, manifest.bf16, manifest.runtime_timings) == ("openvino", True, ())
    with open_path(tmp_path / "a").session as session:
        assert (session.description.runtime, session.description.precision) == ("openvino", "bf16")


def test_bf16_that_costs_too_much_is_left_out(
    tmp_path: Path, mrpc: tuple[Checkpoint, Path]
) -> None:
    """Judged by how near the logits are, with nothing allowed, only what does not round is left."""
    if "bf16" not in precisions_of(openvino_core()):
        pytest.skip("this CPU has no bf16 for OpenVINO")
    artefact = artefact_from_checkpoint(mrpc[0], tmp_path / "a")
    golden = artefact.golden()

    def score(session: Session) -> dict[str, float | None]:
        return {"near": -difference_between(session.run(golden.batch), golden.logits_BC)}

    calibration_set = CalibrationSet(batches=[], score=score, metric="near", max_drop=0.01)

    found = select_fastest_runtime(artefact, PLAN, calibration_set)

    assert [one.runtime for one in found.manifest.runtime_timings] == ["onnxruntime", "openvino"]
    with pytest.raises(VerificationFailed, match="openvino:bf16 costs more near than allowed"):
        select_named_runtime(artefact, RUNTIME_CHOICES["openvino:bf16"], calibration_set)


def test_a_runtime_that_does_not_run_it_is_refused_before_it_is_written(
    tmp_path: Path, mrpc: tuple[Checkpoint, Path]
) -> None:
    """OpenVINO has no fp16: one line says so, and there is no artefact that cannot be opened."""
    result = export(mrpc[0], tmp_path / "a", "--precision", "fp16", "--runtime", "openvino")

    assert result.exit_code == 1
    assert "openvino does not run fp16 artefacts" in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_graph_that_answers_otherwise_is_no_candidate(
    tmp_path: Path, mrpc: tuple[Checkpoint, Path]
) -> None:
    """A portable file that gives other logits than the checkpoint leaves ONNX Runtime alone."""
    artefact = artefact_from_checkpoint(mrpc[0], tmp_path / "a")
    model = onnx.load(artefact.folder / PORTABLE_FILE, load_external_data=False)
    next(n for n in model.graph.node if n.output[0] == "logits").op_type = "Neg"
    (artefact.folder / PORTABLE_FILE).write_bytes(model.SerializeToString())
    manifest = replace(artefact.manifest, files=hashes_of(artefact.folder))

    found = select_fastest_runtime(replace(artefact, manifest=manifest), PLAN, None)

    assert [one.runtime for one in found.manifest.runtime_timings] == ["onnxruntime"]


def test_matrices_tuned_for_another_runtime_are_told(tmp_path: Path) -> None:
    """What OpenVINO's times decided, for or against gathering, is told where another serves."""
    blocks = tiny_checkpoint(
        tmp_path / "c", pattern=parse_pattern("block:16x1"), layers=1, task="mrpc"
    )
    first = export(blocks, tmp_path / "a", *QUICK, "--runtime", "openvino")
    file = tmp_path / "a" / TUNING_FILE

    again = export(blocks, tmp_path / "b", "--tuning", file)

    assert (first.exit_code, again.exit_code) == (0, 0), first.output
    assert read_tuning(file).runtime == open_artefact(tmp_path / "a").manifest.runtime == "openvino"
    said = "chosen by times in openvino, but the artefact is served in onnxruntime"
    assert said in " ".join(again.stderr.split())
    assert said not in " ".join(first.stderr.split())


def test_a_runtime_that_cannot_be_tuned_is_left_out(tmp_path: Path) -> None:
    """OpenVINO starts no more threads than cores: told where it is one of two, else an error."""
    blocks = tiny_checkpoint(tmp_path / "c", pattern=parse_pattern("block:16x1"), layers=1)
    many = (*QUICK[:-4], "--threads", str((os.cpu_count() or 1) + 1), "--seconds", "0.003")

    both = export(blocks, tmp_path / "a", *many)
    named = export(blocks, tmp_path / "b", *many, "--runtime", "openvino")

    assert (both.exit_code, named.exit_code) == (0, 1), both.output
    assert "not tuned in openvino: " in " ".join(both.stderr.split())
    assert read_tuning(tmp_path / "a" / TUNING_FILE).runtime == "onnxruntime"
    assert "no more threads than there are cores" in " ".join(named.stderr.split())


def test_int8_is_chosen_by_its_own_times(tmp_path: Path) -> None:
    """Times of int8 products decide an int8 export, then and again, and no export in fp32."""
    mrpc_files(tmp_path / "MRPC")
    blocks = tiny_checkpoint(
        tmp_path / "c", pattern=parse_pattern("block:16x1"), layers=1, task="mrpc"
    )
    int8 = ("--precision", "int8", "--data", tmp_path / "MRPC", "--max-drop", "100")

    first = export(blocks, tmp_path / "a", *int8, *QUICK)
    file = tmp_path / "a" / TUNING_FILE
    again = export(blocks, tmp_path / "b", *int8, "--tuning", file)
    other = export(blocks, tmp_path / "d", "--tuning", file)

    assert [first.exit_code, again.exit_code, other.exit_code] == [0, 0, 1], first.output
    assert read_tuning(file).precision is Precision.INT8
    made, remade = (open_artefact(tmp_path / name).manifest for name in "ab")
    assert all(row.measured for row in made.matrices)
    assert made.matrices == remade.matrices
    assert "measured in another precision; got int8, to export fp32" in other.stderr
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--max-drop", "1"),
        ("--data", "MRPC"),
        ("--task", "mrpc"),
        ("--precision", "fp16", "--tuning", "tuning.json"),
        ("--precision", "fp16", "--tune"),
    ],
    ids=" ".join,
)
def test_options_without_effect_are_refused(
    tmp_path: Path, mrpc: tuple[Checkpoint, Path], words: tuple[str, ...]
) -> None:
    """What would be ignored is a wrong command line."""
    result = export(mrpc[0], tmp_path / "a", *words)

    assert result.exit_code == 2
    assert not list(tmp_path.iterdir())
