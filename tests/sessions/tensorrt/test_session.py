"""A session on an engine: what is refused before anything is loaded, and what it does then."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporters.export import artefact_from_checkpoint
from exporters.tensorrt.build import BuildRequest, build_engine
from serve.open_model import open_served
from spd_deploy.domain.artefact import Artefact, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadArtefact, EngineFailed, SpdError, Unavailable
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from spd_deploy.domain.text import Batch, Tokens, pad
from spd_deploy.sessions.device_runs import DeviceRuns
from spd_deploy.sessions.open import difference_between, open_path, session_from_artefact
from spd_deploy.sessions.tensorrt import compatibility as gate
from spd_deploy.sessions.tensorrt.compatibility import (
    engine_fault,
    refuse_incompatible,
    refuse_old_driver,
)
from spd_deploy.sessions.tensorrt.engine_record import (
    ENGINE_FILE,
    RECORD_FILE,
    EngineHost,
    read_record,
    write_record,
)
from spd_deploy.sessions.torch import TorchSession
from tests.sessions.tensorrt.conftest import Machine, exported
from tests.sessions.tensorrt.fake_gpu import FakeGpu

Made = Callable[..., Machine]
HERE = EngineHost(
    gpu="NVIDIA H200",
    compute_capability="9.0",
    driver="580.95.05",
    cuda="13.0",
    tensorrt="10.13.3.9",
)


@pytest.fixture
def built(machine: Made, artefact: Artefact) -> Artefact:
    """An artefact whose engine was built by TensorRT 10 on the made-up H200."""
    machine()
    build_engine(artefact, BuildRequest(builds=1))
    return artefact


def rows_of(artefact: Artefact, lengths: tuple[int, ...]) -> Batch:
    draw = np.random.default_rng(len(lengths))
    vocabulary = artefact.encoder.vocabulary
    return pad(
        [
            Tokens(ids=tuple(draw.integers(1, vocabulary, n).tolist()), types=(0,) * n)
            for n in lengths
        ],
        pad_id=0,
    )


@pytest.mark.parametrize("lengths", [(1,), (3, 8), (9, 2, 5), (32,) * 5, (4,) * 11, (31, 1) * 7])
def test_batches_of_any_size_are_answered(
    lengths: tuple[int, ...], built: Artefact, nm_checkpoint: Checkpoint
) -> None:
    """Padded into a bucket, or row by row through several, as the checkpoint answers."""
    batch = rows_of(built, lengths)

    with (
        session_from_artefact(built) as session,
        TorchSession(nm_checkpoint.folder) as reference,
    ):
        assert difference_between(session.run(batch), reference.run(batch)) < 2e-2


def test_a_run_launches_a_graph_and_allocates_nothing(machine: Made, artefact: Artefact) -> None:
    """A copy in, a graph, a copy out, and the wait for it."""
    here = machine()
    build_engine(artefact, BuildRequest(builds=1))

    with session_from_artefact(artefact) as session:
        here.gpu.calls.clear()
        session.run(rows_of(artefact, (3, 4)))

    assert here.gpu.calls[:5] == [
        "enter",
        "copy_in",
        "launch",
        "copy_out",
        "wait",
    ]
    assert here.gpu.held == 0


def test_answers_are_the_callers_own(built: Artefact) -> None:
    """A later run leaves an earlier one's logits as they were."""
    with session_from_artefact(built) as session:
        first = session.run(rows_of(built, (5,)))
        kept = first.copy()
        session.run(rows_of(built, (9,)))

    np.testing.assert_array_equal(first, kept)


def test_a_batch_stays_on_the_gpu(built: Artefact) -> None:
    """Prepared, it is launched as often as one likes, and gives what the session gives."""
    batch = rows_of(built, (5, 8, 3))

    with session_from_artefact(built) as session:
        assert isinstance(session, DeviceRuns)
        expected_BC = session.run(batch)
        prepared = session.prepare(batch, graph=True)
        for _ in range(3):
            prepared.copy_to_device()
            prepared.enqueue()
            prepared.enqueue()
            prepared.copy_to_host()
            assert np.array_equal(prepared.logits(), expected_BC)
        assert prepared.stream_handle != 0
        with pytest.raises(Unavailable, match="by its CUDA graph"):
            session.prepare(batch, graph=False)
        with pytest.raises(Unavailable, match="sub-batches"):
            session.prepare(rows_of(built, (4,) * 11), graph=True)


def test_threads_wait_for_each_other(built: Artefact) -> None:
    """Rows of different threads do not mix."""
    batches = [rows_of(built, (n, 3)) for n in range(1, 9)]
    found: list[Any] = [None] * len(batches)

    with session_from_artefact(built) as session:
        expected = [session.run(batch) for batch in batches]

        def run(i: int) -> None:
            found[i] = session.run(batches[i])

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(batches))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_the_engine_does_not_hold_is_refused(built: Artefact) -> None:
    """Longer texts, ids beyond a table, and a session that was closed."""
    wide = np.ones((1, 33), np.int64)
    strange = np.full((1, 4), built.encoder.vocabulary, np.int64)
    with session_from_artefact(built) as session:
        with pytest.raises(EngineFailed, match="33 tokens; it has 1x8, 1x32, 4x8, 4x32"):
            session.run(Batch(ids_BS=wide, mask_BS=wide, types_BS=0 * wide))
        with pytest.raises(EngineFailed, match=r"the model takes input_ids of 0 to"):
            session.run(Batch(ids_BS=strange, mask_BS=0 * strange + 1, types_BS=0 * strange))
    with pytest.raises(EngineFailed, match="the session is closed"):
        session.run(rows_of(built, (3,)))


def refusal(artefact: Artefact, kind: type[SpdError], said: str) -> None:
    with pytest.raises(kind, match=said):
        session_from_artefact(artefact)


def test_an_engine_with_one_byte_changed_is_not_loaded(machine: Made, artefact: Artefact) -> None:
    """Its hash is not the record's; TensorRT's runtime is not even made."""
    here = machine()
    build_engine(artefact, BuildRequest(builds=1))
    file = artefact.folder / ENGINE_FILE
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    before = here.log.runtimes

    refusal(artefact, BadArtefact, "was changed after it was built; got SHA-256 .*build it again")

    assert here.log.runtimes == before
    assert here.gpu.held == 0


@pytest.mark.parametrize(
    ("gpu", "version", "said"),
    [
        (FakeGpu(name="NVIDIA A30"), "10.13.3.9", "built for NVIDIA H200; got NVIDIA A30"),
        (FakeGpu(capability="8.0"), "10.13.3.9", "compute capability 8.0"),
        (FakeGpu(), "10.14.1", r"by TensorRT 10\.13\.3\.9; got TensorRT 10\.14\.1"),
        (FakeGpu(), "11.4.0", "built by TensorRT 10"),
        (FakeGpu(cuda="12.8"), "10.13.3.9", "for CUDA 13.0; got driver 580.95.05 for CUDA 12.8"),
        (FakeGpu(), "9.3.0", "TensorRT 10 or 11 is needed; got TensorRT 9.3.0"),
    ],
)
def test_an_engine_of_elsewhere_is_not_loaded(
    gpu: FakeGpu, version: str, said: str, built: Artefact, machine: Made
) -> None:
    """Another GPU, another TensorRT, an older driver: each is named, and nothing is loaded."""
    other = machine("10.13.3.9", gpu)
    vars(sys.modules["tensorrt"])["__version__"] = version

    refusal(built, Unavailable, said)

    assert other.log.runtimes == 0


def test_a_newer_driver_is_fine(built: Artefact, machine: Made) -> None:
    """An engine outlives updates of the driver."""
    machine("10.13.3.9", FakeGpu(cuda="13.2"))

    with session_from_artefact(built) as session:
        assert session.description.device == "cuda"


def test_compatible_engines_load_where_they_say(built: Artefact) -> None:
    """Later versions, GPUs of the same compute capability, or Ampere and later; no others."""
    record = read_record(built.folder)

    def loads(here: EngineHost, **options: Any) -> bool:
        try:
            refuse_incompatible(replace(record, options=replace(record.options, **options)), here)
        except Unavailable:
            return False
        return True

    h100 = replace(HERE, gpu="NVIDIA H100")
    assert loads(HERE)
    assert not loads(h100)
    assert loads(h100, hardware="same_compute_capability")
    assert not loads(replace(h100, compute_capability="8.9"), hardware="same_compute_capability")
    assert loads(replace(h100, compute_capability="8.9"), hardware="ampere_plus")
    assert not loads(replace(h100, compute_capability="7.5"), hardware="ampere_plus")
    assert loads(replace(HERE, tensorrt="11.4.0"), version_compatible=True)
    assert not loads(replace(HERE, tensorrt="10.9.0"), version_compatible=True)


def test_an_old_driver_is_named() -> None:
    """TensorRT for CUDA 13 does not run on a driver of CUDA 12."""
    old = replace(HERE, cuda="12.8", driver="570.86.15")

    with pytest.raises(Unavailable, match=r"built for CUDA 13; got driver 570\.86\.15.*cu12"):
        refuse_old_driver(old, built_for=13)
    refuse_old_driver(old, built_for=12)
    refuse_old_driver(old, built_for=None)


def test_an_old_driver_is_known_before_a_build(
    machine: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export then says so in its note, and writes the artefact without an engine."""
    here = machine()
    assert engine_fault() is None
    monkeypatch.setattr(gate, "cuda_major_of_tensorrt", lambda: 14)

    assert "the driver is too old for this TensorRT" in str(engine_fault())
    assert here.gpu.held == 0


@pytest.mark.parametrize("field", ["onnx_sha256", "weights_sha256", "plan_sha256", "masks_sha256"])
def test_an_engine_of_other_files_is_not_loaded(field: str, built: Artefact) -> None:
    """The graph, the weights, the plan and the zeros are those it was built from."""
    record = read_record(built.folder)
    zeros: dict[str, Any] = {field: "0" * 64}
    write_record(built.folder, replace(record, **zeros))

    refusal(built, BadArtefact, "was built from (another|weights with other)")


def test_a_missing_or_damaged_record_is_told(built: Artefact) -> None:
    """Without a record there is no engine; one that is cut or says something else is damaged."""
    file = built.folder / RECORD_FILE
    text = file.read_text()
    file.write_text(json.dumps({**json.loads(text), "parity": 0.0}))
    refusal(built, BadArtefact, r"engine\.json was changed after it was written")

    file.write_text(text[: len(text) // 2])
    refusal(built, BadArtefact, r"engine\.json is not valid JSON")

    file.unlink()
    refusal(built, Unavailable, "is not built; .* spd build .* --runtime onnxruntime")


@pytest.mark.parametrize("memory_bytes", [0, 1000])
def test_a_full_gpu_is_told(memory_bytes: int, built: Artefact, machine: Made) -> None:
    """Out of buffers at load is one error, and what was taken is given back."""
    here = machine("10.13.3.9", FakeGpu(memory_bytes=memory_bytes))

    refusal(built, Unavailable, "the GPU has not enough free memory")

    assert here.gpu.held == 0


def test_an_engine_that_tensorrt_does_not_take_is_told(machine: Made, artefact: Artefact) -> None:
    """TensorRT's own words are in the error."""
    here = machine()
    build_engine(artefact, BuildRequest(builds=1))
    here.log.refuse = "[E] IRuntime::deserializeCudaEngine: Error Code 1: magic tag does not match"

    refusal(artefact, BadArtefact, "TensorRT cannot load the engine; got .*magic tag")


def test_without_a_driver_nothing_crashes() -> None:
    """A process of its own ends with the error, whatever a TensorRT would do there."""
    code = (
        "import sys\n"
        "from spd_deploy.sessions.tensorrt import compatibility as gate\n"
        "from spd_deploy.domain.errors import Unavailable\n"
        "try:\n"
        "    gate.load_tensorrt()\n"
        "except Unavailable as err:\n"
        "    print(err)\n"
        "print('tensorrt' in sys.modules)\n"
    )
    from spd_deploy.domain.nvidia import driver_fault

    if driver_fault() is None:
        pytest.skip("a driver works here")

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "NVIDIA's driver does not work here" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def test_without_an_engine_it_runs_on_the_cpu(
    artefact: Artefact, nm_checkpoint: Checkpoint
) -> None:
    """Through its portable graph, with the checkpoint's logits, when that is asked for."""
    batch = rows_of(artefact, (3, 32, 7))

    with (
        open_path(
            artefact.folder, runtime_choice=RUNTIME_CHOICES["onnxruntime"]
        ).session as session,
        TorchSession(nm_checkpoint.folder) as reference,
    ):
        assert session.description.precision == "fp16"
        assert difference_between(session.run(batch), reference.run(batch)) < 2e-2
    with pytest.raises(Unavailable, match="is not built"):
        open_path(artefact.folder)


def test_tensorrt_is_of_gpus_and_of_trt_artefacts(
    built: Artefact, nm_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """The CPU is refused, and so is an artefact that has no plan."""
    other = artefact_from_checkpoint(nm_checkpoint, tmp_path / "onnx")

    with pytest.raises(Unavailable, match="TensorRT runs on GPUs only"):
        session_from_artefact(built, device="cpu")
    with pytest.raises(Unavailable, match="tensorrt does not run an artefact of format onnx"):
        session_from_artefact(other, runtime="tensorrt")


def test_an_engine_does_not_travel_to_another_export(
    built: Artefact, dense_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Copied into another artefact, it is found to be none of its own."""
    other = exported(dense_checkpoint, tmp_path / "other")
    for name in (ENGINE_FILE, RECORD_FILE):
        (other.folder / name).write_bytes((built.folder / name).read_bytes())

    refusal(open_artefact(other.folder), BadArtefact, r"was built from another portable\.onnx")


@pytest.mark.parametrize("name", [ENGINE_FILE, RECORD_FILE])
def test_an_engine_is_no_link_to_elsewhere(built: Artefact, tmp_path: Path, name: str) -> None:
    """An engine is code, and no hash of the export's says which; so it lies in the artefact."""
    outside = (built.folder / name).rename(tmp_path / f"outside-{name}")
    (built.folder / name).symlink_to(outside)

    refusal(built, BadArtefact, "is a link to a file outside the artefact")


def test_an_engine_may_lie_where_a_volume_keeps_it(built: Artefact) -> None:
    """Links within the artefact's own folder are followed."""
    data = built.folder / "..2026_11_30"
    data.mkdir()
    for file in [file for file in built.folder.iterdir() if file.is_file()]:
        file.rename(data / file.name)
        file.symlink_to(Path("..data") / file.name)
    (built.folder / "..data").symlink_to(data.name)

    with session_from_artefact(open_artefact(built.folder)) as session:
        assert session.description.runtime == "tensorrt"


def test_it_is_served_as_any_other(built: Artefact) -> None:
    """Verified, self-tested and warmed up at the longest text; what runs it is told."""
    served = open_served(built.folder)

    with served.session:
        assert str(served.session.description) == "tensorrt 10.13.3.9 on cuda in fp16"
        assert served.card.format == "trt"
        assert served.card.self_test is not None and served.card.self_test < 2e-2
