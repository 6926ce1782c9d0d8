"""What the GPU's clock lets be said: the fastest dense arm, limits, and the word "faster"."""

from dataclasses import replace

import pytest

from spd_deploy.benchmark.device.device_records import TracedKernel
from spd_deploy.benchmark.judge import judge
from spd_deploy.benchmark.machine_tables import gpu_table
from spd_deploy.benchmark.plots import draw_plots
from spd_deploy.benchmark.proof import why_unproven
from spd_deploy.benchmark.records import ArmFacts
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.report_html import html_from_report
from spd_deploy.benchmark.samples import fastest_mode
from spd_deploy.benchmark.summary import headlines
from spd_deploy.benchmark.tables import (
    device_details_table,
    device_table,
    kernel_table,
    skipped_table,
)
from spd_deploy.domain.roofline import Work
from tests.benchmark.made import (
    ARM,
    DENSE,
    SHAPE,
    gathered,
    three_arms,
    three_judged,
    without_kernel,
)
from tests.benchmark.made_device import (
    CUDA,
    GEMM,
    SPARSE,
    device_report,
    trace_of,
    two_dense_and_a_block,
)


def nm_by(lowering: str) -> ArmFacts:
    """A 2:4 arm whose matrices are said to run so."""
    group = replace(DENSE, lowering=lowering, density=0.5, flops_share=0.5)
    return replace(ARM, name="nm", pattern="2:4", sparsity=0.5, lowered=(group,), runtime=CUDA)


def engine(known: tuple[str, ...] | None) -> ArmFacts:
    """A 2:4 arm whose matrices TensorRT got whole, and what its inspector knows of its kernels."""
    runtime = replace(CUDA, runtime="tensorrt", sparse_kernels=known)
    return replace(without_kernel("nm"), runtime=runtime)


def test_each_arm_is_taken_in_its_faster_way() -> None:
    """The smaller median of graph and launched counts, and the other stands beside it."""
    report = device_report({"a": (0.02, 0.03), "b": (0.03, 0.02)}, dense=("a", "b"))

    a, b = judge(report).device
    assert a.device is not None and b.device is not None
    assert (a.device.mode, b.device.mode) == ("graph", "launched")
    assert fastest_mode(report, "b", SHAPE) == "launched"
    assert a.p50.value == pytest.approx(0.02, rel=0.02)
    assert a.device.other_mode_s == pytest.approx(0.03, rel=0.02)
    assert a.device.cold_s == pytest.approx(1.1 * a.p50.value, rel=0.02)
    assert (a.device.to_device_s, a.device.to_host_s) == (1e-5, 2e-5)


def test_all_are_compared_with_the_fastest_dense_arm() -> None:
    """By either clock the baseline is the faster of two dense arms, not the first."""
    judgement = judge(two_dense_and_a_block())

    for rows in (judgement.rows, judgement.device):
        ratios = {row.arm: row.speed_up and row.speed_up.ratio for row in rows}
        assert {row.against for row in rows} == {"compile"}
        assert ratios["compile"] is None
        assert ratios["eager"] == pytest.approx(0.8, rel=0.03)
        assert ratios["block"] == pytest.approx(2.0, rel=0.03)


def test_the_word_faster_needs_an_interval_off_1() -> None:
    """An arm of the baseline's own time is no different, though its kernel is sparse."""
    report = device_report(
        {"eager": (0.016, 0.02), "nm": (0.016, 0.02)},
        dense=("eager",),
        facts={"nm": nm_by("2:4")},
        kernels={"nm": (SPARSE,)},
    )

    (_, row) = judge(report).device
    assert row.speed_up is not None
    assert row.speed_up.low < 1 < row.speed_up.high
    assert row.speed_up.verdict == "no difference shown"


@pytest.mark.parametrize(
    ("facts", "kernels", "reason"),
    [
        (gathered("block"), (GEMM,), None),
        (gathered("block"), None, None),
        (nm_by("compact"), (GEMM,), None),
        (nm_by("2:4"), (GEMM, SPARSE), None),
        (nm_by("2:4"), (GEMM,), "no sparse kernel is among the 1 kernels that ran"),
        (nm_by("2:4"), None, "it is not known which kernels ran"),
        (nm_by("compact, 2:4"), (GEMM,), "no sparse kernel is among the 1 kernels that ran"),
        (without_kernel("nm"), (GEMM,), "no sparse kernel ran: all its matrices run dense"),
        (without_kernel("nm"), (SPARSE,), "no sparse kernel ran: all its matrices run dense"),
        (engine(None), None, "it is not known which kernels ran"),
        (engine(None), (GEMM,), "no sparse kernel is among the 1 kernels that ran"),
        (engine(None), (GEMM, SPARSE), None),
        (engine(()), (GEMM,), "no sparse kernel ran: tensorrt chose dense kernels"),
        (engine((SPARSE.name,)), (GEMM,), None),
        (engine((SPARSE.name,)), None, None),
    ],
)
def test_a_gain_of_sparsity_needs_something_that_skips_zeros(
    facts: ArmFacts, kernels: tuple[TracedKernel, ...] | None, reason: str | None
) -> None:
    """By construction, or by a kernel with a name for it; else no sparse arm is called faster."""
    assert why_unproven(facts, trace_of(facts, kernels)) == reason

    report = device_report(
        {"eager": (0.016, 0.02), facts.name: (0.008, 0.01)},
        dense=("eager",),
        facts={facts.name: facts},
        kernels={facts.name: kernels},
    )
    judgement = judge(report)
    verdict = "faster" if reason is None else "unproven"
    for rows in (judgement.rows, judgement.device):
        assert [row.speed_up.verdict for row in rows if row.speed_up] == [verdict]
    (line,) = headlines(report, judgement)
    assert ("faster" in line.statement) == (reason is None)
    assert line.why == reason


def test_a_session_may_know_its_kernels_for_certain() -> None:
    """What an engine's inspector names counts where nothing could be traced."""
    known = replace(CUDA, sparse_kernels=("sm80_xmma_sparse_gemm",))
    facts = replace(nm_by("2:4"), runtime=known)

    assert why_unproven(facts, trace_of(facts, None)) is None


def test_an_engine_whose_sparse_kernels_gained_nothing_is_not_said_to_run_dense() -> None:
    """Its matrices are stored whole, but what ran decides what is said of them."""
    report = device_report(
        {"eager": (0.016, 0.02), "nm": (0.032, 0.04)},
        dense=("eager",),
        facts={"nm": engine((SPARSE.name,))},
    )

    (line,) = headlines(report, judge(report))
    assert line.why is not None
    assert line.why.startswith("its sparse kernels ran, and the rest")


def test_a_slower_arm_is_slower_proven_or_not() -> None:
    """Only the word for a gain is kept back."""
    report = device_report(
        {"eager": (0.016, 0.02), "nm": (0.032, 0.04)},
        dense=("eager",),
        facts={"nm": without_kernel("nm")},
    )

    assert [row.speed_up.verdict for row in judge(report).device if row.speed_up] == ["slower"]


@pytest.mark.parametrize(
    ("work", "seconds", "bound"),
    [
        (Work(flops=1e12, moved_bytes=1e9), 1e-2, "arithmetic"),
        (Work(flops=1e11, moved_bytes=4e9), 4e-3, "memory"),
    ],
)
def test_the_limit_is_the_larger_of_two_times(work: Work, seconds: float, bound: str) -> None:
    """Kept operations over the peak, or bytes over the bandwidth, both of this very run."""
    report = device_report({"eager": (0.02, 0.03)}, dense=("eager",), work=work)

    (row,) = judge(report).device
    assert row.device is not None and row.device.limit is not None
    assert row.device.limit.seconds == pytest.approx(seconds)
    assert row.device.limit.bound == bound
    assert row.reached == pytest.approx(seconds / row.p50.value)


def test_a_precision_without_a_peak_has_no_limit() -> None:
    """A rate that was not measured is not made up."""
    report = device_report({"eager": (0.02, 0.03)}, dense=("eager",))
    assert report.device is not None
    without = replace(report, device=replace(report.device, peaks=()))

    (row,) = judge(without).device
    assert row.device is not None
    assert (row.device.limit, row.reached) == (None, None)


def test_an_arm_that_the_gpu_never_timed_has_no_row() -> None:
    """Without device runs it is judged by the host's clock alone."""
    report = two_dense_and_a_block()
    assert report.device is not None
    series = tuple(s for s in report.device.series if s.arm != "block")
    judgement = judge(replace(report, device=replace(report.device, series=series)))

    assert {row.arm for row in judgement.device} == {"eager", "compile"}
    assert judgement.row("block", SHAPE).speed_up is not None


def test_a_way_that_broke_off_is_not_compared() -> None:
    """Where a round is missing, as after memory ran out, the other way stands for the arm."""
    report = two_dense_and_a_block()
    assert report.device is not None
    series = tuple(
        s for s in report.device.series if (s.arm, s.mode, s.round) != ("block", "graph", 5)
    )
    rows = judge(replace(report, device=replace(report.device, series=series))).device

    (block,) = [row for row in rows if row.arm == "block"]
    assert block.device is not None
    assert (block.device.mode, block.device.other_mode_s) == ("launched", None)


def test_a_report_of_a_cpu_has_none_of_it() -> None:
    """Nothing is added where no GPU was measured."""
    report, judgement = three_arms(), three_judged()

    assert judgement.device == ()
    assert "device" not in judgement.to_json()
    tables = (kernel_table(report), gpu_table(report), skipped_table(report))
    judged = (device_table(report, judgement), device_details_table(judgement))
    assert (*judged, *tables) == (None,) * 5


def test_tables_tell_what_ran_and_what_did_not() -> None:
    """Ways, kernels, limits, the card and what is missing stand in them."""
    report = two_dense_and_a_block()
    judgement = judge(report)
    device, parts = device_table(report, judgement), device_details_table(judgement)
    ran, absent, gpu = kernel_table(report), skipped_table(report), gpu_table(report)

    assert device is not None and parts is not None
    assert ran is not None and absent is not None and gpu is not None
    cells = {row[1]: row for row in device.rows}
    assert cells["compile"][4] == "baseline"
    assert cells["block"][5] == "graph"
    assert {len(row) for row in device.rows} == {len(device.columns)}
    assert {len(row) for row in parts.rows} == {len(parts.columns)}
    assert cells["block"][4] == "faster"
    assert {row[0]: row[4] for row in ran.rows}["block"].startswith("yes: by construction")
    assert {len(row) for row in ran.rows} == {len(ran.columns)}
    assert absent.rows == (("tensorrt-fp16", "TensorRT is not installed"),)
    rows = {name: text for name, text in gpu.rows}
    assert rows["card"] == "NVIDIA H100 80GB HBM3, driver 580.65.06"
    assert rows["SM clock"] == "1500 MHz"
    assert rows["peak in fp16"] == "100.0 TFLOP/s, 1000 wide"
    assert rows["memory bandwidth"] == "1000 GB/s"


def page_of(report: Report) -> str:
    judgement = judge(report)
    return html_from_report(report, judgement, draw_plots(report, judgement))


@pytest.mark.usefixtures("rendered")
def test_the_page_shows_the_gpu() -> None:
    """The headline names the fastest dense arm, and the GPU's tables are on the page."""
    report = two_dense_and_a_block()
    page = page_of(report)

    (line,) = headlines(report, judge(report))
    assert line.statement.startswith(
        "block (block:16x1 at 75 %, fp16): 2.0x faster than the fastest"
    )
    for said in ("Latency on the GPU", "Not measured", "100.0 TFLOP/s", "the fastest dense arm"):
        assert said in page
    assert "Latency on the GPU" not in page_of(three_arms())
