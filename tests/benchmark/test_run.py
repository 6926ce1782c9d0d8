"""A whole run on real artefacts, under a clock that counts calls."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from spd_deploy.benchmark.arms import Arm, ArmSource
from spd_deploy.benchmark.baseline import as_dense, baseline_from
from spd_deploy.benchmark.judge import judge
from spd_deploy.benchmark.layers.profile_layers import why_unprofiled
from spd_deploy.benchmark.publish import summary_of, write_report
from spd_deploy.benchmark.records import BenchmarkSettings, ResidentMemory, Shape
from spd_deploy.benchmark.report import Report, read_report
from spd_deploy.benchmark.run import RunTools, run_benchmark
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadArtefact, BadCheckpoint
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES

SETTINGS = BenchmarkSettings(
    shapes=Shape.grid((1, 2), (8,)), threads=1, rounds=2, seconds=0.01, min_runs=2, max_runs=3
)
WEIGHT = ResidentMemory(before_bytes=1, opened_bytes=2, peak_bytes=3)


def weigh(source: ArmSource, settings: BenchmarkSettings) -> ResidentMemory:
    """Every arm weighs the same."""
    return WEIGHT


@pytest.fixture(scope="module")
def report(arms: tuple[Arm, ...]) -> Report:
    """A run of both arms."""
    return run(arms)


def run(arms: tuple[Arm, ...], baseline: str | None = "dense") -> Report:
    """A run in which each look at the clock takes a millisecond."""
    ticks = itertools.count(step=10**6)
    tools = RunTools(clock=lambda: next(ticks), weigh=weigh)
    baselines = () if baseline is None else (baseline,)
    return run_benchmark(arms, SETTINGS, baselines=baselines, tools=tools)


def test_a_run_makes_a_report(report: Report, tmp_path: Path) -> None:
    """Arms, series and machine are in it, and it comes back from its file."""
    write_report(report, tmp_path / "report")

    assert [arm.name for arm in report.arms] == ["dense", "nm"]
    assert {arm.memory for arm in report.arms} == {WEIGHT}
    assert {s for series in report.series for s in series.seconds} == {1e-3}
    assert report.machine.cores >= 1
    assert read_report(tmp_path / "report" / "report.json") == report


def test_a_real_arm_without_a_kernel_says_why(report: Report) -> None:
    """The reason of the exporter reaches the headline."""
    (line,) = summary_of(report, judge(report))["headlines"]

    assert line.startswith("nm (2:4 at 50 %): no speed-up over dense shown")
    assert f"all {report.arm('nm').matrices} matrices run dense: 2:4 needs sparse tensor" in line


def test_no_path_of_the_machine_is_published(
    report: Report, arms: tuple[Arm, ...], tmp_path: Path
) -> None:
    """Neither file names a folder of this machine."""
    write_report(report, tmp_path / "report")
    folders = {
        str(p)
        for arm in arms
        if arm.source
        for p in arm.source.artefact.folder.parents
        if len(p.parts) > 1
    }
    folders |= {str(tmp_path), str(Path.home()), str(Path.cwd())}

    for name in ("report.json", "report.html"):
        text = (tmp_path / "report" / name).read_text(encoding="utf-8")
        assert [folder for folder in folders if f"{folder}/" in text] == []


def test_a_run_without_a_baseline_compares_nothing(arms: tuple[Arm, ...]) -> None:
    """One arm alone is measured for itself."""
    judgement = judge(run(arms[1:], baseline=None))

    assert {row.speed_up for row in judgement.rows} == {None}


def test_arms_that_cannot_be_profiled_are_named(arms: tuple[Arm, ...]) -> None:
    """A sparse arm in another runtime or precision has a reason; where it can be, there is none."""
    nm = arms[1].source
    assert nm is not None
    manifest = replace(nm.artefact.manifest, precision="int8")
    small = replace(nm, artefact=replace(nm.artefact, manifest=manifest))

    assert why_unprofiled(nm) is None
    assert "in openvino" in str(
        why_unprofiled(replace(nm, runtime_choice=RUNTIME_CHOICES["openvino"]))
    )
    assert "it is int8" in str(why_unprofiled(small))


def test_wrong_logits_stop_a_run_before_it_is_timed(arms: tuple[Arm, ...]) -> None:
    """An arm that is not what it says is never measured."""
    swapped = [replace(arm, open=other.open) for arm, other in zip(arms, arms[::-1], strict=True)]

    with pytest.raises(BadArtefact, match="does not give its checkpoint's logits"):
        run_benchmark(swapped, SETTINGS, tools=RunTools(weigh=weigh))


def test_an_artefact_is_its_own_baseline(dense_artefact: Artefact) -> None:
    """A folder that holds an artefact is opened as it is."""
    with baseline_from(dense_artefact.folder, progress=Silent()) as found:
        assert found == dense_artefact


def test_a_sparse_checkpoint_becomes_a_dense_baseline(block_checkpoint: Checkpoint) -> None:
    """It is exported with every matrix dense under its own score, and is gone afterwards."""
    with baseline_from(block_checkpoint.folder, progress=Silent()) as found:
        manifest = found.manifest
        folder = found.folder

    assert {row.lowering for row in manifest.matrices} == {"dense"}
    assert manifest.sparsity is None
    assert manifest.scores["dense"] == block_checkpoint.scores["sparse"]
    assert not folder.exists()


def test_a_dense_checkpoint_is_a_baseline_as_it_is(dense_checkpoint: Checkpoint) -> None:
    """Nothing is taken from a checkpoint that promises no pattern."""
    assert as_dense(dense_checkpoint) == dense_checkpoint
    assert as_dense(replace(dense_checkpoint, scores={})).scores == {}


def test_a_missing_baseline_is_named(tmp_path: Path) -> None:
    """A path with nothing there is no baseline."""
    with (
        pytest.raises(BadCheckpoint, match="no such folder"),
        baseline_from(tmp_path / "gone", progress=Silent()),
    ):
        pass
