"""A whole run on a simulated GPU: real tiny artefacts, sessions that take known times."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from spd_deploy.benchmark.arms import Arm
from spd_deploy.benchmark.compare import dense_names
from spd_deploy.benchmark.device.cuda_tools import DeviceTools
from spd_deploy.benchmark.device.device_records import TracedKernel
from spd_deploy.benchmark.judge import judge
from spd_deploy.benchmark.publish import write_report
from spd_deploy.benchmark.records import BenchmarkSettings, Shape, Skipped
from spd_deploy.benchmark.report import Report, read_report
from spd_deploy.benchmark.run import RunTools, run_benchmark
from spd_deploy.benchmark.summary import headlines
from spd_deploy.benchmark.tables import kernel_table
from spd_deploy.domain.errors import BadArtefact, SpdError, Unavailable
from spd_deploy.domain.shapes import random_batch
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.protocol import Closing, Description
from tests.benchmark.made_device import COPIED, GEMM, PEAK, SPARSE
from tests.nvml import h100_reading
from tests.timing.simulated_gpu import SimulatedGpu, SimulatedRuns, Times

RANDOM = np.random.default_rng(0)
SETTINGS = BenchmarkSettings(
    shapes=Shape.grid((1, 2), (8,)),
    device="cuda",
    rounds=3,
    seconds=0.01,
    min_runs=2,
    max_runs=3,
)


class FakeSession(SimulatedRuns, Closing):
    """A session whose call takes its run's time and the copies; it must be closed once."""

    def __init__(self, gpu: SimulatedGpu, times: Times, opened: list["FakeSession"]) -> None:
        super().__init__(gpu, times)
        opened.append(self)
        self.closed = 0
        self.description = Description(
            runtime="fake", version="1", device="cuda", precision="fp16", threads=None
        )

    def run(self, batch: Batch) -> NDArray[np.float32]:
        run = self.prepare(batch, graph=True)
        for step in (run.copy_to_device, run.enqueue, run.copy_to_host):
            step()
        self.gpu.wait(run.stream_handle)
        return run.logits()

    def close(self) -> None:
        self.closed += 1


class Bench:
    """Arms over two artefacts on one simulated GPU."""

    def __init__(self, arms: tuple[Arm, ...]) -> None:
        self.gpu = SimulatedGpu()
        self.sessions: list[FakeSession] = []
        self.used = 0
        self.kernels: dict[int, tuple[TracedKernel, ...]] = {}
        self.arms = {arm.name: arm for arm in arms}

    def tools(self) -> DeviceTools:
        return DeviceTools(
            gpu=self.gpu,
            read_state=h100_reading,
            trace=lambda run: (GEMM, SPARSE) if len(self.sessions) > 1 else (GEMM,),
            used_bytes=lambda: 1000 * len(self.sessions),
            peaks=lambda: ((PEAK,), (Skipped(name="peak in int8", reason="not supported"),)),
            memory_copy=lambda: COPIED,
            l2_bytes=1 << 20,
            versions={"CUDA of torch": "13.0"},
            processes_before=0,
        )

    def arm(
        self, name: str, times: Times, *, check: Callable[[object], float] = lambda _: 1e-3
    ) -> Arm:
        return replace(
            self.arms[name],
            open=lambda settings: FakeSession(self.gpu, times, self.sessions),
            check=check,
        )


def measured(
    arms: Sequence[Arm],
    settings: BenchmarkSettings,
    *,
    tools: DeviceTools,
    skipped: Sequence[Skipped] = (),
) -> Report:
    """A run on the simulated GPU against every dense arm; nothing is weighed."""
    assert isinstance(tools.gpu, SimulatedGpu)
    return run_benchmark(
        arms,
        settings,
        baselines=dense_names(arms),
        skipped=skipped,
        tools=RunTools(clock=tools.gpu.clock, weigh=lambda *_: None, device=tools),
    )


@pytest.fixture
def bench(arms: tuple[Arm, ...]) -> Bench:
    return Bench(arms)


def test_a_run_makes_a_report(bench: Bench, tmp_path: Path) -> None:
    """Both clocks, limits, states and kernels are in it, and it comes back from its file."""
    arms = (bench.arm("dense", Times()), bench.arm("nm", Times(device_ns=50_000)))
    missing = (Skipped(name="dense torch-compile", reason="no compiler"),)

    report = measured(arms, SETTINGS, skipped=missing, tools=bench.tools())

    assert report.baselines == ("dense",)
    assert report.device is not None
    assert [one.name for one in report.skipped] == ["dense torch-compile", "peak in int8"]
    assert report.device.card is not None and report.device.card.name == "NVIDIA H100 80GB HBM3"
    assert report.device.during
    assert [arm.device_bytes for arm in report.device.arms] == [1000, 1000]
    assert [session.closed for session in bench.sessions] == [1, 1]
    write_report(report, tmp_path / "report")
    assert read_report(tmp_path / "report" / "report.json") == report


def test_a_gain_without_a_sparse_way_is_unproven(bench: Bench) -> None:
    """The artefact's matrices run dense, so the half of the time is not called faster."""
    arms = (bench.arm("dense", Times()), bench.arm("nm", Times(device_ns=50_000)))

    judgement = judge(measured(arms, SETTINGS, tools=bench.tools()))

    found = [row.speed_up for row in judgement.device if row.arm == "nm"]
    assert [one and one.verdict for one in found] == ["unproven"] * len(SETTINGS.shapes)
    assert all(one and one.ratio == pytest.approx(100 / 50, rel=1e-6) for one in found)
    assert all(row.device and row.device.limit for row in judgement.device)


class Choosing(FakeSession):
    """An engine that knows a sparse kernel in batches of two rows and of none in others."""

    rows = 0

    def run(self, batch: Batch) -> NDArray[np.float32]:
        self.rows = len(batch.ids_BS)
        self.description = Description(
            runtime="tensorrt",
            version="1",
            device="cuda",
            precision="fp16",
            threads=None,
            kernels=f"a bucket of {self.rows}",
            sparse_kernels=("spgemm",) if self.rows == 2 else (),
        )
        return super().run(batch)


def test_each_shape_has_its_own_proof(bench: Bench, tmp_path: Path) -> None:
    """What a session says after a run of a shape, and what was traced there, is of that shape."""
    known = bench.arm("nm", Times(device_ns=50_000))
    nm = replace(
        known,
        open=lambda settings: Choosing(bench.gpu, Times(device_ns=50_000), bench.sessions),
        check=lambda session: float(session.run(random_batch(SETTINGS.largest, 50, RANDOM)).max()),
    )
    traced: list[int] = []

    def trace(run: Callable[[], object]) -> tuple[TracedKernel, ...]:
        """A dense kernel, whatever ran."""
        logits_BC = run()
        assert isinstance(logits_BC, np.ndarray)
        traced.append(len(logits_BC))
        return (GEMM,)

    tools = replace(bench.tools(), trace=trace)

    report = measured((bench.arm("dense", Times()), nm), SETTINGS, tools=tools)

    judgement = judge(report)
    assert traced == [1, 2, 1, 2]
    assert report.device is not None
    assert [(str(one.shape), one.described) for one in report.device.arm("nm").traces] == [
        ("1x8", "a bucket of 1"), ("2x8", "a bucket of 2"),
    ]  # fmt: skip
    for rows in (judgement.rows, judgement.device):
        found = {str(row.shape): row.speed_up for row in rows if row.arm == "nm"}
        assert {at: one and one.verdict for at, one in found.items()} == {
            "1x8": "unproven",
            "2x8": "faster",
        }
    (line,) = headlines(report, judgement)
    assert "faster than dense at 2x8" in line.statement and line.why is None
    table = kernel_table(report)
    assert table is not None
    assert [row[4] for row in table.rows if row[0] == "nm"] == [
        "no: no sparse kernel ran: tensorrt chose dense kernels",
        "yes: spgemm",
    ]
    slower = replace(
        nm, name="nm", open=lambda settings: Choosing(bench.gpu, Times(), bench.sessions)
    )
    again = measured((bench.arm("dense", Times()), slower), SETTINGS, tools=tools)
    (line,) = headlines(again, judge(again))
    assert line.why is not None and line.why.startswith("its sparse kernels ran")


def refusing(_: object) -> float:
    """A check that fails."""
    raise BadArtefact("other logits", fix="export again")


def test_a_dense_arm_that_fails_is_left_out_with_its_reason(bench: Bench) -> None:
    """It is closed at once, listed, and the rest is compared with the dense arms that remain."""
    failing = replace(bench.arm("dense", Times(), check=refusing), name="dense broken")
    arms = (failing, bench.arm("dense", Times()), bench.arm("nm", Times()))

    report = measured(arms, SETTINGS, tools=bench.tools())

    assert report.baseline == "dense"
    assert report.device is not None
    assert report.skipped[0] == Skipped(name="dense broken", reason="other logits; export again")
    assert [session.closed for session in bench.sessions] == [1, 1, 1]


def failing_of_itself(_: object) -> float:
    """A check in which a library fails in words of its own."""
    raise RuntimeError("CUDA error: an illegal memory access\nSearch for it in the manual")


def test_a_librarys_failure_leaves_the_other_arms(bench: Bench) -> None:
    """An arm whose runtime fails is closed and left out, by the error's kind and first line."""
    failing = replace(bench.arm("dense", Times(), check=failing_of_itself), name="broken")
    arms = (failing, bench.arm("dense", Times()), bench.arm("nm", Times()))

    report = measured(arms, SETTINGS, tools=bench.tools())

    assert report.device is not None
    (left_out, _) = report.skipped
    assert left_out.reason == "RuntimeError: CUDA error: an illegal memory access"
    assert [session.closed for session in bench.sessions] == [1, 1, 1]


def test_a_tracer_that_fails_costs_no_time_that_was_measured(bench: Bench) -> None:
    """The kernels are missing with the reason, at each shape, and the rest is as ever."""

    def broken(_: object) -> None:
        raise RuntimeError("CUPTI_ERROR_NOT_INITIALIZED")

    tools = replace(bench.tools(), trace=broken)
    arms = (bench.arm("dense", Times()), bench.arm("nm", Times()))

    report = measured(arms, SETTINGS, tools=tools)

    assert report.device is not None
    assert [ran.kernels for arm in report.device.arms for ran in arm.traces] == [None] * 4
    assert report.skipped[-1] == Skipped(
        name="kernels of nm at 2x8", reason="RuntimeError: CUPTI_ERROR_NOT_INITIALIZED"
    )
    assert len(judge(report).device) == 4


@pytest.mark.parametrize(
    ("name", "baselines", "error"),
    [("nm", 1, BadArtefact), ("dense", 1, BadArtefact), ("dense", 2, Unavailable)],
)
def test_a_sparse_arm_that_fails_or_no_dense_one_is_an_error(
    bench: Bench, name: str, baselines: int, error: type[SpdError]
) -> None:
    """What was asked to be measured is not left out, nor a comparison made with nothing."""

    def arm(known: str) -> Arm:
        return bench.arm(known, Times(), check=refusing if known == name else lambda _: 0.0)

    dense = [replace(arm("dense"), name=f"dense {i}") for i in range(baselines)]
    with pytest.raises(error):
        measured([*dense, arm("nm")], SETTINGS, tools=bench.tools())
    assert all(session.closed == 1 for session in bench.sessions)


def test_long_shapes_are_refused(bench: Bench) -> None:
    """Nothing is opened for a shape that an arm does not read."""
    settings = replace(SETTINGS, shapes=(Shape(batch=1, seq=4096),))

    with pytest.raises(BadArtefact, match="cuts its texts"):
        measured([bench.arm("dense", Times())], settings, tools=bench.tools())
    assert bench.sessions == []
