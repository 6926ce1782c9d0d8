"""The GPU's part of a report: it comes back as it went, is optional, and damage is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spd_deploy.benchmark.judge import judge
from spd_deploy.benchmark.report import Report, read_report, text_from_report
from spd_deploy.domain.errors import BadReport
from tests.benchmark.made import three_arms
from tests.benchmark.made_device import two_dense_and_a_block
from tests.benchmark.test_report import dropped, put

Value = dict[str, Any]


def written(report: Report, file: Path) -> Path:
    file.write_text(text_from_report(report, judge(report).to_json()), encoding="utf-8")
    return file


def test_it_comes_back_as_it_went(tmp_path: Path) -> None:
    """Samples, states and limits survive, to the last bit; so does what no card told."""
    report = two_dense_and_a_block()
    assert report.device is not None
    bare = replace(
        report.device, card=None, before=None, after=None, during=(), processes_before=None
    )

    for one in (report, replace(report, device=bare)):
        found = read_report(written(one, tmp_path / "r"))
        assert found == one
        assert judge(found) == judge(one)


def test_a_report_of_before_still_reads(tmp_path: Path) -> None:
    """Without the part, and without what descriptions gained, it is the report it was."""
    file = written(three_arms(), tmp_path / "r")
    value = json.loads(file.read_text(encoding="utf-8"))
    del value["device"]
    for arm in value["arms"]:
        del arm["runtime"]["sparse_kernels"]
    file.write_text(json.dumps(value), encoding="utf-8")

    assert read_report(file) == three_arms()


@pytest.mark.parametrize(
    "change",
    [
        dropped("device", "memory_copy"),
        put([], "device", "series", 0, "gpu_s"),
        put([1.0], "device", "series", 0, "enqueue_s"),
        put([-1.0], "device", "copies", 0, "to_host_s"),
        put("warm", "device", "series", 0, "cache"),
        put("fast", "device", "during", 0, "sm_mhz"),
        put([], "device", "peaks", 0, "seconds"),
        put("other", "device", "arms", 0, "name"),
        put([], "device", "arms", 0, "traces"),
    ],
)
def test_damage_is_refused(change: Callable[[Value], None], tmp_path: Path) -> None:
    """What is missing, of the wrong kind, or of other arms than the report's."""
    file = written(two_dense_and_a_block(), tmp_path / "r")
    value = json.loads(file.read_text(encoding="utf-8"))
    change(value)
    file.write_text(json.dumps(value), encoding="utf-8")

    with pytest.raises(BadReport):
        read_report(file)


def test_what_is_compared_with_is_named() -> None:
    """Several dense arms are not among the others, and the fastest of them is the baseline."""
    report = two_dense_and_a_block()

    assert report.baselines == ("eager", "compile")
    assert [arm.name for arm in report.others] == ["block"]
    assert report.against == "the fastest dense arm"
    assert (three_arms().baselines, three_arms().against) == (("dense",), "dense")
