"""Reports of a GPU made of numbers, so that what should be said of them is known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from spd_deploy.benchmark.device.device_records import (
    CopySeries,
    DeviceArm,
    DevicePart,
    DeviceSeries,
    KernelTrace,
    MemoryCopy,
    Mode,
    Peak,
    ShapeWork,
    TracedKernel,
)
from spd_deploy.benchmark.records import ArmFacts, Shape, Skipped
from spd_deploy.benchmark.report import Report
from spd_deploy.domain.nvidia import GpuProperties, GpuState
from spd_deploy.domain.roofline import Work
from tests.benchmark.made import ARM, SHAPE, drawn, gathered, made_report, without_kernel

CARD = GpuProperties(name="NVIDIA H100 80GB HBM3", driver="580.65.06", persistence=True, mig=False)
GEMM = TracedKernel(name="sm90_xmma_gemm_f16f16_f16f32_f32_tn_n", calls=12, seconds=1e-3)
SPARSE = TracedKernel(name="sm90_xmma_sparse_gemm_f16f16_f16f32", calls=12, seconds=5e-4)
# Half a TFLOP at 100 TFLOP/s: 5 ms; 1 GB at 1 TB/s: 1 ms.
WORK = Work(flops=5e11, moved_bytes=1e9)
PEAK = Peak(precision="fp16", size=1000, seconds=(2e-5, 3e-5))
COPIED = MemoryCopy(moved_bytes=10**9, seconds=(1e-3, 2e-3))
CUDA = replace(ARM.runtime, device="cuda", precision="fp16", threads=None)


def looked(at_s: float = 1.0, **changes: object) -> GpuState:
    """A busy card whose clocks are locked, or one that differs."""
    state = GpuState(
        at_s=at_s,
        sm_mhz=1500.0,
        sm_most_mhz=1980.0,
        memory_mhz=2619.0,
        memory_most_mhz=2619.0,
        power_w=400.0,
        power_limit_w=700.0,
        temperature_c=50.0,
        busy_percent=99.0,
        reasons=("clocks set by the user",),
    )
    return replace(state, **changes)  # type: ignore[arg-type]


IDLE = looked(at_s=0.0, busy_percent=0.0, reasons=("idle",), sm_mhz=345.0, power_w=70.0)


def on_cuda(facts: ArmFacts, name: str) -> ArmFacts:
    """An arm in fp16 on CUDA, in a runtime of its own where that is there already."""
    runtime = facts.runtime if facts.runtime.device == "cuda" else CUDA
    return replace(facts, name=name, precision="fp16", runtime=runtime)


def trace_of(
    facts: ArmFacts, kernels: tuple[TracedKernel, ...] | None, *, shape: Shape = SHAPE
) -> KernelTrace:
    """What an arm ran, of which its session knows what its description does."""
    known = facts.runtime.sparse_kernels
    return KernelTrace(
        shape=shape, kernels=kernels, described=facts.runtime.kernels, sparse_kernels=known
    )


def device_report(
    seconds: Mapping[str, tuple[float, float]],
    *,
    dense: Sequence[str],
    facts: Mapping[str, ArmFacts] | None = None,
    kernels: Mapping[str, tuple[TracedKernel, ...] | None] | None = None,
    enqueue_share: float = 0.1,
    work: Work = WORK,
) -> Report:
    """Arms by their medians by graph and launched; the host's clock is that of the graph."""
    known, traced = facts or {}, kernels or {}
    arms = tuple(on_cuda(known.get(name, ARM), name) for name in seconds)
    rounds = {
        name: drawn(graph_s, seed=i) for i, (name, (graph_s, _)) in enumerate(seconds.items())
    }
    report = made_report(rounds, arms=arms, baseline=dense[0] if dense else None)
    series = [
        one
        for i, (name, times) in enumerate(seconds.items())
        for one in series_of(name, times, enqueue_share, seed=10 * i)
    ]
    run = DevicePart(
        card=CARD,
        before=IDLE,
        during=(looked(1.0), looked(2.0)),
        after=IDLE,
        processes_before=0,
        l2_bytes=50 << 20,
        versions={"CUDA of torch": "13.0"},
        peaks=(PEAK,),
        memory_copy=COPIED,
        arms=tuple(
            DeviceArm(
                name=name,
                traces=(trace_of(known.get(name, ARM), traced.get(name, (GEMM,))),),
                device_bytes=300_000_000,
                work=(ShapeWork(shape=SHAPE, work=work),),
            )
            for name in seconds
        ),
        series=tuple(series),
        copies=tuple(
            CopySeries(arm=name, shape=SHAPE, round=0, to_device_s=(1e-5,), to_host_s=(2e-5,))
            for name in seconds
        ),
    )
    settings = replace(report.settings, device="cuda", threads=None)
    return replace(
        report,
        settings=settings,
        baselines=tuple(dense),
        device=run,
        skipped=(Skipped(name="tensorrt-fp16", reason="TensorRT is not installed"),),
    )


def series_of(
    name: str, times: tuple[float, float], enqueue_share: float, seed: int
) -> list[DeviceSeries]:
    """Both ways of one arm, hot and a tenth slower cold, in six rounds."""
    found = []
    ways: tuple[Mode, Mode] = ("graph", "launched")
    for place, mode in enumerate(ways):
        for cache, slower in (("hot", 1.0), ("cold", 1.1)):
            for number, samples in enumerate(drawn(slower * times[place], seed=seed + place)):
                found.append(
                    DeviceSeries(
                        arm=name,
                        shape=SHAPE,
                        round=number,
                        mode=mode,
                        cache="hot" if cache == "hot" else "cold",
                        gpu_s=tuple(samples),
                        host_s=tuple(1.05 * s for s in samples),
                        enqueue_s=tuple(enqueue_share * s for s in samples),
                    )
                )
    return found


def two_dense_and_a_block(**changes: object) -> Report:
    """Eager and compiled dense arms, of which the second is faster, and a block arm."""
    return device_report(
        {"eager": (0.020, 0.030), "compile": (0.016, 0.018), "block": (0.008, 0.012)},
        dense=("eager", "compile"),
        facts={"block": gathered("block"), "nm": without_kernel("nm")},
        **changes,  # type: ignore[arg-type]
    )
