"""The JSON document: it comes back as it went, and damage is refused."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spd_deploy.benchmark.judge import judge
from spd_deploy.benchmark.publish import summary_of
from spd_deploy.benchmark.report import Report, read_report, text_from_report
from spd_deploy.domain.errors import BadReport
from spd_deploy.domain.nvidia import Gpu
from tests.benchmark.made import ARM, MACHINE, three_arms, three_judged

Value = dict[str, Any]


@functools.cache
def text() -> str:
    """The document of three arms."""
    report = three_arms()
    return text_from_report(report, summary_of(report, three_judged()))


def test_a_report_comes_back_as_it_went(tmp_path: Path) -> None:
    """Reading what was written gives an equal report, to the last bit of each sample."""
    (tmp_path / "report.json").write_text(text(), encoding="utf-8")

    assert read_report(tmp_path / "report.json") == three_arms()


def test_a_report_of_a_gpu_comes_back_too(tmp_path: Path) -> None:
    """GPUs, a missing memory and a missing load survive."""
    gpu = Gpu(name="GPU", driver="570.1", compute_capability="9.0", memory_bytes=1 << 37)
    report = three_arms()
    changed = replace(
        report,
        machine=replace(MACHINE, gpus=(gpu,), governor=None),
        arms=(replace(ARM, memory=None), *report.arms[1:]),
        conditions=replace(report.conditions, load_before=None),
        baselines=(),
    )
    (tmp_path / "r").write_text(text_from_report(changed, {}), encoding="utf-8")

    assert read_report(tmp_path / "r") == changed


def test_every_sample_is_in_the_text() -> None:
    """The raw samples stand there in the order they were made, a series on a line."""
    value = json.loads(text())

    assert [s["seconds"] for s in value["series"]] == [list(s.seconds) for s in three_arms().series]
    assert any(line.count(",") >= 39 for line in text().splitlines())


def test_what_is_derived_is_computed_anew(tmp_path: Path) -> None:
    """A changed verdict in the file changes nothing that is read from it."""
    (tmp_path / "r").write_text(text().replace('"faster"', '"slower"'), encoding="utf-8")

    assert judge(read_report(tmp_path / "r")) == three_judged()


def dropped(*path: str | int) -> Callable[[Value], None]:
    """A change that removes what lies at ``path``."""

    def change(value: Any) -> None:
        for step in path[:-1]:
            value = value[step]
        del value[path[-1]]

    return change


def put(new: object, *path: str | int) -> Callable[[Value], None]:
    """A change that puts ``new`` at ``path``."""

    def change(value: Any) -> None:
        for step in path[:-1]:
            value = value[step]
        value[path[-1]] = new

    return change


DAMAGE: dict[str, Callable[[Value], None]] = {
    "no machine": dropped("machine"),
    "no series": dropped("series"),
    "a lost series": dropped("series", 3),
    "no samples": put([], "series", 0, "seconds"),
    "a negative sample": put([-1.0], "series", 0, "seconds"),
    "a sample of zero": put([0.0], "series", 0, "seconds"),
    "a sample that is text": put(["fast"], "series", 0, "seconds"),
    "a sample that is no number": put([float("nan")], "series", 0, "seconds"),
    "an endless sample": put([float("inf")], "series", 0, "seconds"),
    "a series of an unknown arm": put("other", "series", 0, "arm"),
    "an arm twice": put("dense", "arms", 1, "name"),
    "an unknown baseline": put(["teacher"], "baselines"),
    "an unknown device": put("tpu", "settings", "device"),
    "a shape of nothing": put(0, "settings", "shapes", 0, "batch"),
    "one round": put(1, "settings", "rounds"),
    "a machine that is a list": put([], "machine"),
    "a newer schema": put(3, "schema"),
    "no schema": dropped("schema"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_report_is_refused(damage: str, tmp_path: Path) -> None:
    """Whatever is missing, of the wrong kind or at odds with the rest raises BadReport."""
    value = json.loads(text())
    DAMAGE[damage](value)
    (tmp_path / "r").write_text(json.dumps(value), encoding="utf-8")

    with pytest.raises(BadReport) as caught:
        read_report(tmp_path / "r")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"schema": 2}'])
def test_what_is_no_report_is_refused(content: str, tmp_path: Path) -> None:
    """So is a file that was never one."""
    (tmp_path / "r").write_text(content, encoding="utf-8")

    with pytest.raises(BadReport):
        read_report(tmp_path / "r")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A path with nothing there is named."""
    with pytest.raises(BadReport, match=r"cannot read .*absent\.json"):
        read_report(tmp_path / "absent.json")


def test_a_report_knows_its_arms() -> None:
    """Arms are found by name, and the baseline is not among the others."""
    report: Report = three_arms()

    assert report.arm("nm").pattern == "2:4"
    assert [arm.name for arm in report.others] == ["block", "nm"]
