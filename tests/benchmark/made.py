"""Reports made of numbers instead of measurements, so that what should be said of them is known."""

import functools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from spd_deploy.benchmark.arms import Arm, ArmSource
from spd_deploy.benchmark.judge import Judgement, judge
from spd_deploy.benchmark.records import (
    ArmFacts,
    BenchmarkSettings,
    Lowered,
    ResidentMemory,
    Series,
    Shape,
)
from spd_deploy.benchmark.report import Report
from spd_deploy.machine.facts import Machine
from spd_deploy.sessions.protocol import Description
from spd_deploy.timing.machine_load import Conditions
from spd_deploy.timing.speed_up import Rounds

SHAPE = Shape(batch=8, seq=32)
IDLE = Conditions(load_before=0.05, others_cores=0.02)
MACHINE = Machine(
    cpu="Test CPU",
    cores=4,
    usable_cores=4.0,
    features=("AVX2",),
    memory_bytes=16 * 10**9,
    governor="performance",
    system="Linux 6.1 x86_64",
    python="3.11.7",
    versions={"onnxruntime": "1.24.0"},
    gpus=(),
)
NO_KERNEL = "2:4 needs sparse tensor cores"
DENSE = Lowered(
    lowering="dense",
    reason="dense weights",
    matrices=12,
    weights=12_000,
    density=1.0,
    flops_share=1.0,
)
ARM = ArmFacts(
    name="dense",
    format="onnx",
    precision="fp32",
    pattern=None,
    sparsity=None,
    task="sst2",
    sizes={"layers": 2, "hidden": 64},
    models={"model.onnx": "ab" * 32},
    model_bytes=2_000_000,
    folder_bytes=2_100_000,
    runtime=Description(
        runtime="onnxruntime", version="1.24.0", device="cpu", precision="fp32", threads=2
    ),
    lowered=(DENSE,),
    score={"accuracy": 0.9, "mcc": None},
    split="dev",
    parity=1e-6,
    memory=ResidentMemory(before_bytes=50_000_000, opened_bytes=60_000_000, peak_bytes=70_000_000),
)


def source_of(arm: Arm) -> ArmSource:
    """The artefact behind an arm."""
    assert arm.source is not None
    return arm.source


def gathered(name: str = "block") -> ArmFacts:
    """An arm whose matrices all run on a quarter of their inputs."""
    group = replace(
        DENSE, lowering="gathered", reason="kept inputs only", density=0.25, flops_share=0.25
    )
    return replace(
        ARM, name=name, pattern="block:16x1", sparsity=0.75, model_bytes=600_000, lowered=(group,)
    )


def without_kernel(name: str = "nm") -> ArmFacts:
    """A 2:4 arm, which runs dense for a reason."""
    group = replace(DENSE, reason=NO_KERNEL, density=0.5)
    return replace(ARM, name=name, pattern="2:4", sparsity=0.5, lowered=(group,))


def drawn(
    median_s: float, *, rounds: int = 6, runs: int = 40, spread: float = 0.02, seed: int = 0
) -> Rounds:
    """Log-normal samples about a median."""
    random = np.random.default_rng(seed)
    samples = median_s * np.exp(spread * random.standard_normal((rounds, runs)))
    return [[float(s) for s in by_round] for by_round in samples]


def made_report(
    samples: Mapping[str, Rounds],
    *,
    arms: tuple[ArmFacts, ...] = (),
    baseline: str | None = "dense",
    shapes: tuple[Shape, ...] = (SHAPE,),
) -> Report:
    """A report of these samples by arm, the same at every shape, on an idle machine."""
    known = {arm.name: arm for arm in arms}
    (rounds,) = {len(r) for r in samples.values()}
    return Report(
        created="2026-01-02T03:04:05+00:00",
        machine=MACHINE,
        settings=BenchmarkSettings(shapes=shapes, threads=2, rounds=rounds),
        conditions=IDLE,
        baselines=() if baseline is None else (baseline,),
        arms=tuple(known.get(name, replace(ARM, name=name)) for name in samples),
        series=tuple(
            Series(arm=name, shape=shape, round=number, warmup_s=(1.0,), seconds=tuple(sample))
            for name, by_round in samples.items()
            for number, sample in enumerate(by_round)
            for shape in shapes
        ),
    )


@functools.cache
def three_arms() -> Report:
    """Dense, a block arm of twice its speed, and a 2:4 arm of the same speed, at two shapes."""
    return made_report(
        {
            "dense": drawn(0.010, seed=1),
            "block": drawn(0.005, seed=2),
            "nm": drawn(0.010, seed=3),
        },
        arms=(ARM, gathered(), without_kernel()),
        shapes=(Shape(batch=1, seq=16), SHAPE),
    )


@functools.cache
def three_judged() -> Judgement:
    """What is said of :func:`three_arms`."""
    return judge(three_arms())
