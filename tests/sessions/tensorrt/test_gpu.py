"""On a GPU with TensorRT: an engine is built, is what it says, and answers as its checkpoint."""

from pathlib import Path

import numpy as np
import pytest

from exporters.precision import Precision
from exporters.tensorrt.build import BuildRequest, build_engine
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.patterns import parse_pattern
from spd_deploy.domain.text import Tokens, pad
from spd_deploy.sessions.cuda.device import CudaDevice
from spd_deploy.sessions.open import difference_between, open_path
from spd_deploy.sessions.torch import TorchSession
from tests.sessions.tensorrt.conftest import exported
from tests.tiny import tiny_checkpoint

pytestmark = [pytest.mark.gpu, pytest.mark.trt]


def checkpoint_of(folder: Path, spelled: str | None) -> Checkpoint:
    pattern = None if spelled is None else parse_pattern(spelled)
    return tiny_checkpoint(folder, pattern=pattern, hidden=128, heads=4, intermediate=512)


def test_memory_goes_to_the_gpu_and_back() -> None:
    """Through pinned memory, a stream and a recorded graph, with a time that passed."""
    device = CudaDevice()
    try:
        address = device.allocate(1024)
        (there, sent), (back, got) = device.allocate_pinned(1024), device.allocate_pinned(1024)
        sent[:] = np.arange(1024) % 251
        with device.capture() as made:
            device.copy_in(address, there, 1024)
            device.copy_out(back, address, 1024)
        with device.timer() as timer:
            with timer.around():
                device.launch(made[0])
            assert timer.seconds() > 0
        np.testing.assert_array_equal(got, sent)
        device.free_graph(made[0])
        device.free(address)
        device.free_pinned(there)
        device.free_pinned(back)
    finally:
        device.close()


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16])
@pytest.mark.parametrize("spelled", [None, "2:4", "block:32x1", "structured"])
def test_an_engine_answers_as_its_checkpoint(
    spelled: str | None, precision: Precision, tmp_path: Path
) -> None:
    """At every bucket, and in turns through several; in fp32 to within rounding."""
    checkpoint = checkpoint_of(tmp_path / "c", spelled)
    artefact = exported(checkpoint, tmp_path / "a", seqs=(16,), precision=precision)

    record = build_engine(artefact, BuildRequest(builds=1))

    draw = np.random.default_rng(0)
    with (
        open_path(artefact.folder).session as session,
        TorchSession(checkpoint.folder) as reference,
    ):
        for lengths in ((1,), (16, 3), (32,) * 4, (20, 7, 1) * 3):
            rows = [
                Tokens(
                    ids=tuple(draw.integers(1, checkpoint.encoder.vocabulary, n).tolist()),
                    types=(0,) * n,
                )
                for n in lengths
            ]
            batch = pad(rows, pad_id=0)
            tolerance = artefact.manifest.parity.tolerance
            assert difference_between(session.run(batch), reference.run(batch)) <= tolerance
        with pytest.raises(EngineFailed, match="no rows of so many tokens"):
            session.run(pad([Tokens(ids=(1,) * 33, types=(0,) * 33)], pad_id=0))
    assert all(seconds > 0 for build in record.builds for seconds in build.seconds)
    assert [build.variant for build in record.builds] == (
        ["sparse", "dense"] if spelled == "2:4" and precision is Precision.FP16 else ["dense"]
    )
    for verdict in record.verdicts:
        assert verdict.precision in (None, "fp16")
