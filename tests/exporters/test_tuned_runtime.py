"""The runtime that an export is tuned to: the fastest of those whose accuracy is allowed."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from exporters.tuning.runtimes import fastest
from spd_deploy.cli.main import cli
from spd_deploy.domain.artefact import Ran, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.sessions.opening import open_path
from spd_deploy.sessions.openvino import import_openvino, precisions_of
from tests.cli.test_pipeline import mrpc_files
from tests.tiny import tiny_checkpoint

QUICK = ("--tune", "--batch", "1,2", "--seq", "8", "--threads", "1", "--seconds", "0.003")


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
    slow = Ran(runtime="onnxruntime", seconds=(0.2, 0.2))
    quick = Ran(runtime="openvino", seconds=(0.1, 0.3))

    assert fastest((slow, quick)) == "openvino"
    assert fastest((slow, Ran(runtime="openvino", seconds=(0.1, 0.4)))) == "onnxruntime"


def test_without_labels_no_runtime_may_round(tmp_path: Path, mrpc: tuple[Checkpoint, Path]) -> None:
    """Both runtimes are timed in fp32 at each shape, and the manifest names the faster."""
    result = export(mrpc[0], tmp_path / "a", *QUICK)

    assert result.exit_code == 0, result.output
    manifest = open_artefact(tmp_path / "a").manifest
    assert [one.runtime for one in manifest.ran] == ["onnxruntime", "openvino"]
    assert manifest.ran_at == ("1x8", "2x8")
    assert all(len(one.seconds) == 2 for one in manifest.ran)
    assert str(manifest.asked) == fastest(manifest.ran)
    assert f"runs in   {manifest.asked}: ms at 1x8, 2x8" in result.stdout
    with open_path(tmp_path / "a").session as session:
        assert session.description.runtime == manifest.runtime


def test_with_labels_bf16_is_judged_and_timed(
    tmp_path: Path, mrpc: tuple[Checkpoint, Path]
) -> None:
    """OpenVINO in bf16 takes part where its accuracy was measured to be allowed."""
    if "bf16" not in precisions_of(import_openvino().Core()):
        pytest.skip("this CPU has no bf16 for OpenVINO")

    export(mrpc[0], tmp_path / "a", *QUICK, "--data-dir", mrpc[1], "--max-drop", "100")

    ran = [one.runtime for one in open_artefact(tmp_path / "a").manifest.ran]
    assert ran == ["onnxruntime", "openvino", "openvino:bf16"]


def test_a_runtime_that_is_asked_for_is_taken(
    tmp_path: Path, mrpc: tuple[Checkpoint, Path]
) -> None:
    """Nothing is timed; the artefact opens in the runtime and precision that were named."""
    if "bf16" not in precisions_of(import_openvino().Core()):
        pytest.skip("this CPU has no bf16 for OpenVINO")

    export(mrpc[0], tmp_path / "a", "--runtime", "openvino:bf16")

    manifest = open_artefact(tmp_path / "a").manifest
    assert (manifest.runtime, manifest.bf16, manifest.ran) == ("openvino", True, ())
    with open_path(tmp_path / "a").session as session:
        assert (session.description.runtime, session.description.precision) == ("openvino", "bf16")
