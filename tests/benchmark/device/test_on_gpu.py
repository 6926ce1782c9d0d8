"""What only a GPU can show: its clock, graphs, kernels and limits, and the dense arms."""

from functools import partial
from pathlib import Path
from statistics import median
from typing import get_args

import numpy as np
import pytest
import torch

from exporters.export import ExportRequest, artefact_from_checkpoint
from exporters.precision import Precision
from spd_deploy.benchmark.compare import compare_artefacts
from spd_deploy.benchmark.dense.dense_arms import DenseName, proof_batch
from spd_deploy.benchmark.dense.torch_dense import DenseTorchSession, TorchMode
from spd_deploy.benchmark.device.cuda_tools import uuid
from spd_deploy.benchmark.device.limits import measure_copy, measure_peaks
from spd_deploy.benchmark.device.trace_kernels import kernels_of
from spd_deploy.benchmark.judge import judge
from spd_deploy.benchmark.publish import write_report
from spd_deploy.benchmark.records import BenchmarkSettings, Shape
from spd_deploy.benchmark.report import read_report
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import EngineFailed
from spd_deploy.domain.nvidia import read_gpu
from spd_deploy.domain.shapes import random_batch
from spd_deploy.sessions.onnxruntime import OnnxSession, import_onnxruntime
from spd_deploy.sessions.open import difference_between, session_from_artefact
from spd_deploy.sessions.torch import TorchSession
from spd_deploy.timing.cuda_clock import CudaClock, stream_seconds

pytestmark = pytest.mark.gpu
needs_onnxruntime = pytest.mark.skipif(
    "CUDAExecutionProvider" not in import_onnxruntime().get_available_providers(),
    reason="the installed ONNX Runtime has no CUDA provider",
)


@pytest.fixture(scope="module")
def gpu() -> CudaClock:
    return CudaClock()


@pytest.fixture(scope="module")
def half_artefact(
    block_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Artefact:
    folder = tmp_path_factory.mktemp("half") / "block"
    return artefact_from_checkpoint(
        block_checkpoint, folder, ExportRequest(precision=Precision.FP16)
    )


def new_stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def test_marks_time_what_lies_between_them(gpu: CudaClock) -> None:
    """Ten times the cycles take ten times as long, and the host does not wait for them."""
    stream = new_stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(500_000_000)  # type: ignore[no-untyped-call] # clocks ramp up
        short, long = (
            median(
                stream_seconds(gpu, stream.cuda_stream, partial(torch._C._cuda_sleep, cycles))
                for _ in range(5)
            )
            for cycles in (1_000_000, 10_000_000)
        )

    assert long / short == pytest.approx(10, rel=0.2)


def test_a_flush_empties_the_cache(gpu: CudaClock) -> None:
    """A read of what fitted into the cache takes longer once that was written over."""
    stream = new_stream()
    kept = torch.randn(gpu.l2_bytes // 4 // 4, device="cuda")
    torch.cuda.synchronize()
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with torch.cuda.stream(stream):
        for i in range(40):
            if cold := i % 2 == 1:
                gpu.flush(stream.cuda_stream)
            else:
                kept.sum()
            gpu.wait(stream.cuda_stream)
            seconds[cold].append(stream_seconds(gpu, stream.cuda_stream, kept.sum))

    assert median(seconds[True]) > median(seconds[False])


# PyTorch's compiler itself uses what PyTorch 2.11 calls deprecated.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("mode", get_args(TorchMode))
def test_every_form_of_pytorch_gives_the_models_logits(
    dense_checkpoint: Checkpoint, mode: TorchMode
) -> None:
    """By call, launched and by graph, with padding and without."""
    draw = np.random.default_rng(0)
    with (
        TorchSession(dense_checkpoint.folder) as reference,
        DenseTorchSession(dense_checkpoint.folder, mode=mode) as session,
    ):
        for batch in (proof_batch(50), random_batch(Shape(batch=3, seq=8), 50, draw)):
            expected_BC = reference.run(batch)
            found = [session.run(batch), session.run(batch)]
            for graph in (False, True):
                run = session.prepare(batch, graph=graph)
                run.copy_to_device()
                run.enqueue()
                run.copy_to_host()
                found.append(run.logits())
            for logits_BC in found:
                assert difference_between(logits_BC, expected_BC) < 0.05


def test_a_kept_graph_takes_other_batches_of_its_shape(dense_checkpoint: Checkpoint) -> None:
    """A replay reads the new ids, and earlier answers stay as they were."""
    draw = np.random.default_rng(0)
    batches = [random_batch(Shape(batch=2, seq=8), 50, draw) for _ in range(3)]
    with (
        TorchSession(dense_checkpoint.folder) as reference,
        DenseTorchSession(dense_checkpoint.folder, mode="eager") as session,
    ):
        found = [session.run(batch) for batch in batches]
        for logits_BC, batch in zip(found, batches, strict=True):
            assert difference_between(logits_BC, reference.run(batch)) < 0.02


def test_a_closed_session_is_not_run(dense_checkpoint: Checkpoint) -> None:
    """It says that it is closed."""
    session = DenseTorchSession(dense_checkpoint.folder, mode="eager")
    session.close()
    with pytest.raises(EngineFailed, match="closed"):
        session.run(proof_batch(50))


@needs_onnxruntime
def test_onnxruntime_keeps_batches_on_the_gpu(half_artefact: Artefact) -> None:
    """Launched and by graph it gives what a call gives, run after run."""
    batch = half_artefact.golden().batch
    with session_from_artefact(half_artefact, device="cuda") as session:
        assert isinstance(session, OnnxSession)
        expected_BC = session.run(batch)
        for graph in (False, True):
            run = session.prepare(batch, graph=graph)
            for _ in range(3):
                run.copy_to_device()
                run.enqueue()
                run.copy_to_host()
                assert difference_between(run.logits(), expected_BC) < 5e-3


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("mode", get_args(TorchMode))
def test_attention_without_padding_is_flash_attention(
    dense_checkpoint: Checkpoint, mode: TorchMode
) -> None:
    """Of the kernels of a batch without padding, attention's is the one that takes no mask."""
    batch = random_batch(Shape(batch=3, seq=8), 50, np.random.default_rng(0))
    with DenseTorchSession(dense_checkpoint.folder, mode=mode) as session:
        found = kernels_of(lambda: session.run(batch))

    names = [kernel.name for kernel in found or ()]
    assert any("flash" in name.lower() or "cudnn" in name for name in names), names


def test_kernels_are_traced_in_calls_and_in_graphs(dense_checkpoint: Checkpoint) -> None:
    """A run's kernels have names, counts and times, though a graph replays them."""
    with DenseTorchSession(dense_checkpoint.folder, mode="eager") as session:
        batch = proof_batch(50)
        found = kernels_of(lambda: session.run(batch))
        again = kernels_of(lambda: session.run(batch))

    assert found and again
    assert {kernel.name for kernel in found} == {kernel.name for kernel in again}
    assert all(kernel.calls >= 1 and kernel.seconds > 0 for kernel in found)


def test_limits_are_those_of_a_gpu(gpu: CudaClock) -> None:
    """Half precision is faster than single, and memory moves more than a host's would."""
    peaks, absent = measure_peaks(gpu)
    rates = {peak.precision: peak.flops_per_s for peak in peaks}

    assert {"fp16", "fp32"} <= set(rates)
    assert rates["fp16"] > rates["fp32"]
    assert {one.name for one in absent} <= {"peak in int8", "peak in bf16"}
    assert measure_copy(gpu).bytes_per_s > 5e10


def test_the_card_is_found_by_its_id() -> None:
    """What PyTorch calls it, NVML knows, unless it cannot be asked."""
    seen = read_gpu(uuid(), at_s=0.0)
    if seen is None:
        pytest.skip("the driver does not tell of the device")
    assert seen.properties.name


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@needs_onnxruntime
def test_a_whole_comparison(
    half_artefact: Artefact, dense_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """A block artefact against four dense arms: every arm has both clocks, kernels and a limit."""
    settings = BenchmarkSettings(
        shapes=(Shape(batch=2, seq=16),), device="cuda", rounds=2, seconds=0.05, min_runs=3
    )
    names: tuple[DenseName, ...] = (
        "torch-eager",
        "torch-compile",
        "onnxruntime-spd",
        "onnxruntime-fused",
        "tensorrt-fp16",
    )

    report = compare_artefacts(
        [half_artefact.folder], settings, baseline=dense_checkpoint.folder, dense=names
    )

    judgement = judge(report)
    assert report.device is not None
    assert [one.name for one in report.skipped if "dense" in one.name] == ["dense tensorrt-fp16"]
    assert {row.arm for row in judgement.device} == {arm.name for arm in report.arms}
    assert all(row.reached is not None for row in judgement.device)
    assert all(one.kernels for arm in report.device.arms for one in arm.traces)
    write_report(report, tmp_path / "report", judgement=judgement)
    assert read_report(tmp_path / "report" / "report.json") == report
