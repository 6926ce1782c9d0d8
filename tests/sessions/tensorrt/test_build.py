"""``spd build``: what is built, chosen, proved and written, on a machine that is made up."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.tensorrt.build import BuildRequest, build_engine
from exporters.tensorrt.cache import cache_file, read_cache
from spd_deploy.domain.artefact import Artefact, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import (
    BadArtefact,
    SpdError,
    Unavailable,
    VerificationFailed,
)
from spd_deploy.domain.files import sha256_of
from spd_deploy.domain.progress import Silent
from spd_deploy.sessions.open import open_path
from spd_deploy.sessions.tensorrt.engine_record import (
    ENGINE_FILE,
    INSPECTOR_FILE,
    RECORD_FILE,
    EngineRecord,
    read_record,
)
from spd_deploy.sessions.torch import TorchSession
from tests.sessions.tensorrt.conftest import Machine, exported

Made = Callable[..., Machine]
SPARSE = "sm90_xmma_sparse_gemm_f16f16_f16f32_f32_tn_n_tilesize128x64_sptensor16x8x32"
DENSE = "sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1"


def told(config: dict[str, Any], node: str, profile: int) -> dict[str, Any]:
    """A layer a product; with the flag, all but the attention's run sparse, twice as fast."""
    sparse = "SPARSE_WEIGHTS" in config["flags"] and "feed_forward" in node
    return {
        "Name": node if profile == 0 else f"{node} [profile {profile}]",
        "LayerType": "gemm",
        "Inputs": [{"Name": "x", "Format/Datatype": "Row major linear FP16 format"}],
        "Outputs": [],
        "TacticName": SPARSE if sparse else DENSE,
        "HasSparseWeights": 1,
        "Metadata": f"[ONNX Layer: {node}]",
        "ms": 0.005 if sparse else 0.01,
    }


def test_the_fastest_of_all_builds_is_kept(machine: Made, artefact: Artefact) -> None:
    """Each has its times in the record; the file is the fastest one's, whichever draw it was."""
    here = machine()
    here.log.seconds = lambda config: [3e-3, 5e-3, 1e-3, 4e-3, 2e-3, 6e-3][config["number"]]
    here.log.told = told

    record = build_engine(artefact, BuildRequest())

    assert [build.variant for build in record.builds] == ["sparse", "dense"] * 3
    assert [build.seconds[0] for build in record.builds] == pytest.approx(
        [3e-3, 5e-3, 1e-3, 4e-3, 2e-3, 6e-3]
    )
    assert record.chosen == 2
    assert json.loads((artefact.folder / ENGINE_FILE).read_bytes())["number"] == 2
    assert read_record(artefact.folder) == record
    assert here.gpu.held == 0


def test_a_dense_engine_is_kept_where_it_is_faster(machine: Made, artefact: Artefact) -> None:
    """Sparse kernels are not kept for their own sake."""
    here = machine()
    here.log.seconds = lambda config: 2e-3 if "SPARSE_WEIGHTS" in config["flags"] else 1e-3
    here.log.told = told

    record = build_engine(artefact, BuildRequest(builds=1))

    assert record.variant == "dense"
    assert "SPARSE_WEIGHTS" not in record.flags


def test_the_arms_differ_in_one_flag_and_share_their_timings(
    machine: Made, artefact: Artefact
) -> None:
    """A dense build starts from the timings of its sparse one; only the first from known ones."""
    here = machine()

    build_engine(artefact, BuildRequest(builds=2))
    again = len(here.log.builds)
    build_engine(artefact, BuildRequest(builds=1))

    sparse, dense, second, _ = here.log.builds[:again]
    assert set(sparse["flags"]) - set(dense["flags"]) == {"SPARSE_WEIGHTS"}
    assert [sparse["timings"], dense["timings"], second["timings"]] == ["", "+", ""]
    assert here.log.builds[again]["timings"].startswith("+")


def test_the_record_binds_the_engine(machine: Made, artefact: Artefact) -> None:
    """GPU, driver, versions, and the hash of every file."""
    here = machine()
    here.log.told = told

    record = build_engine(artefact, BuildRequest(builds=1))

    files = artefact.manifest.files
    assert str(record.host) == (
        "NVIDIA H200 (compute capability 9.0), driver 580.95.05 for CUDA 13.0, TensorRT 10.13.3.9"
    )
    assert record.onnx_sha256 == files["portable.onnx"]
    assert record.weights_sha256 == files["weights.bin"]
    assert record.plan_sha256 == files["build.json"]
    assert record.engine_sha256 == sha256_of(artefact.folder / ENGINE_FILE)
    assert record.inspector_sha256 == sha256_of(artefact.folder / INSPECTOR_FILE)
    assert record.precision_proof == "6 of 6 products provably in fp16"
    assert record.parity <= artefact.manifest.parity.tolerance
    assert open_artefact(artefact.folder).manifest == artefact.manifest


def test_each_matrix_gets_its_verdict(machine: Made, artefact: Artefact) -> None:
    """What ran sparse by its kernel's name, and how it compares with the dense build's layer."""
    here = machine()
    here.log.told = told

    record = build_engine(artefact, BuildRequest(builds=1))

    rows = {(v.matrix.split(".layer.0.")[1], v.bucket): v for v in record.verdicts}
    assert len(rows) == 6 * len(record.buckets)
    taken, left = rows["output.dense", 3], rows["attention.self.query", 0]
    assert (taken.sparse_tactic, taken.precision) == ("yes", "fp16")
    assert taken.reason == "a sparse kernel runs it, 2.00x faster than the dense kernel"
    assert left.sparse_tactic == "no"
    assert "flagged sparse, which proves nothing" in left.reason
    assert len(record.builds[0].sparse_layers) == 2
    assert record.sparsity_log == ("(Sparsity) Layers eligible for sparse math: all of them",)


@pytest.mark.parametrize("version", ["10.13.3.9", "11.4.0.106"])
def test_an_engine_gives_its_checkpoints_logits(
    version: str, machine: Made, artefact: Artefact, nm_checkpoint: Checkpoint
) -> None:
    """Built and opened by each version; padded into a bucket, or in turns through several."""
    here = machine(version)
    build_engine(artefact, BuildRequest(builds=1))

    with (
        TorchSession(nm_checkpoint.folder) as reference,
        open_path(artefact.folder).session as session,
    ):
        assert session.description.runtime == "tensorrt"
        golden = artefact.golden()
        found = [session.run(golden.batch) for _ in range(2)]
        expected = reference.run(golden.batch)
    np.testing.assert_allclose(found[0], expected, atol=2e-2)
    assert not np.shares_memory(found[0], found[1])
    assert here.gpu.held == 0


def test_a_provably_other_precision_is_refused(machine: Made, artefact: Artefact) -> None:
    """An engine whose kernels multiply in fp32 is not the fp16 engine that was planned."""
    here = machine()
    here.log.told = lambda *args: {**told(*args), "TacticName": "sm80_xmma_gemm_f32f32_tf32f32_f32"}

    with pytest.raises(VerificationFailed, match="runs in fp32 in the engine, not in fp16"):
        build_engine(artefact, BuildRequest(builds=1))

    assert not (artefact.folder / RECORD_FILE).exists()


def test_an_engine_with_other_logits_is_refused(machine: Made, artefact: Artefact) -> None:
    """The earlier engine stays as it was."""
    here = machine()
    before = build_engine(artefact, BuildRequest(builds=1))
    here.log.noise = 0.5

    with pytest.raises(VerificationFailed, match="does not give the checkpoint's logits"):
        build_engine(artefact, BuildRequest(builds=1))

    assert read_record(artefact.folder) == before


def test_a_block_checkpoint_is_not_compared(
    machine: Made, block_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Nothing in it can be run by a sparse kernel, so one variant is built."""
    machine()
    artefact = exported(block_checkpoint, tmp_path / "b")

    record = build_engine(artefact, BuildRequest(builds=2))

    assert [build.variant for build in record.builds] == ["dense", "dense"]
    assert record.verdicts == ()


def test_another_format_is_refused(machine: Made, artefact: Artefact) -> None:
    """An ONNX artefact has no plan."""
    machine()
    other = replace(artefact, manifest=replace(artefact.manifest, format="onnx"))

    with pytest.raises(BadArtefact, match="is not a trt artefact"):
        build_engine(other, BuildRequest())


def test_the_gpu_may_be_too_small(machine: Made, artefact: Artefact) -> None:
    """What TensorRT says of memory becomes one error; nothing stays on the GPU."""
    here = machine()
    here.log.refuse = "[E] Error Code 2: OutOfMemory (Requested size was 9 bytes.)"

    with pytest.raises(Unavailable, match="the GPU has not enough free memory"):
        build_engine(artefact, BuildRequest(builds=1))
    assert here.gpu.held == 0


@pytest.mark.parametrize(
    ("said", "kind"),
    [("[E] Cuda Runtime (out of memory)", Unavailable), ("[E] bad profile", BadArtefact)],
)
def test_a_context_may_not_take_its_profile(
    said: str, kind: type[SpdError], machine: Made, artefact: Artefact
) -> None:
    """That is where a context gets its memory, and TensorRT raises what it did not get."""
    here = machine()
    here.log.no_context = said

    with pytest.raises(kind):
        build_engine(artefact, BuildRequest(builds=1))
    assert here.gpu.held == 0


def test_a_cache_that_cannot_be_read_is_an_empty_one(tmp_path: Path) -> None:
    """It costs the time of a build without; the next one finds a whole one."""
    assert read_cache(tmp_path / "none") == b""
    assert read_cache(tmp_path) == b""


def test_a_record_is_read_strictly(machine: Made, artefact: Artefact) -> None:
    """What was written is read back; another schema, a lost field and a foreign one are refused."""
    machine()
    record = build_engine(artefact, BuildRequest(builds=1))
    value = json.loads(json.dumps(record.to_json()))

    assert EngineRecord.from_json(value) == record
    for other in (
        {**value, "schema": 2},
        {**value, "schema": 99},
        {**value, "chosen": 7},
        {**value, "author": "me"},
        {k: v for k, v in value.items() if k != "host"},
    ):
        with pytest.raises(BadArtefact, match=r"engine\.json"):
            EngineRecord.from_json(other)


def test_the_cache_is_named_after_gpu_and_version(
    machine: Made, artefact: Artefact, tmp_path: Path
) -> None:
    """Timings of one machine are never read on another."""
    machine()

    record = build_engine(artefact, BuildRequest(builds=1))

    (file,) = (tmp_path / "cache" / "spd" / "timings").iterdir()
    assert file.name == "NVIDIA-H200_cc9.0_tensorrt-10.13.3.9.cache"
    assert record.timing_cache_sha256 in (hashlib.sha256(b"+" * n).hexdigest() for n in (1, 2))
    assert file.read_bytes() == b"++"  # after both variants


def test_timings_of_other_models_are_kept(
    machine: Made, artefact: Artefact, tmp_path: Path
) -> None:
    """A later draw, which starts from nothing, may win; what was known before is not forgotten."""
    here = machine()
    file = cache_file(build_engine(artefact, BuildRequest(builds=1)).host)
    here.log.seconds = lambda config: 1.0 / (1 + config["number"])

    record = build_engine(artefact, BuildRequest(builds=2))

    assert record.chosen > 1
    assert file.read_bytes() == b"++++"


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("homeless", [False, True])
def test_a_cache_that_cannot_be_written_is_no_failure(
    homeless: bool,
    machine: Made,
    artefact: Artefact,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine is there and whole, and a line says that the next build takes longer."""
    machine()
    (tmp_path / "cache").write_text("no folder")
    if homeless:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", homeless_user)
    progress = Told()

    build_engine(artefact, BuildRequest(builds=1), progress=progress)

    assert read_record(artefact.folder) is not None
    assert progress.notes[-1].startswith("kernel timings were not saved")


def homeless_user() -> Path:
    """As ``Path.home`` does it without ``HOME`` and an entry of the user's."""
    raise RuntimeError("Could not determine home directory.")
