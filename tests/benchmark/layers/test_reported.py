"""A profile in the benchmark's report: it comes back as it went, and the page shows it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from spd_deploy.benchmark.judge import judge
from spd_deploy.benchmark.layers.analysis import analyse
from spd_deploy.benchmark.publish import refuse_taken, summary_of, write_report
from spd_deploy.benchmark.report import Report, read_report
from spd_deploy.domain.errors import BadReport, NotWritten
from tests.benchmark.layers.made import MS, profile
from tests.benchmark.made import three_arms
from tests.benchmark.test_report_html import PNG, Reader


@pytest.fixture(scope="module")
def report() -> Report:
    """Three arms, of which the block arm was profiled at two shapes."""
    small = profile()
    large = replace(profile(sparse_s=30 * MS), shape=three_arms().settings.largest)
    return replace(three_arms(), layers=(small, large))


@pytest.fixture(scope="module")
def written(report: Report, tmp_path_factory: pytest.TempPathFactory, rendered: None) -> Path:
    """The report's folder."""
    folder = tmp_path_factory.mktemp("layers") / "report"
    write_report(report, folder)
    return folder


def test_a_profile_comes_back_as_it_went(report: Report, written: Path) -> None:
    """Every node's rounds survive, and a report without profiles is read as ever."""
    value = json.loads((written / "report.json").read_text(encoding="utf-8"))
    (written.parent / "older").write_text(
        json.dumps({name: part for name, part in value.items() if name != "layers"})
    )

    assert read_report(written / "report.json") == report
    assert read_report(written.parent / "older") == three_arms()


def test_a_profile_from_before_runtimes_were_named_is_read(written: Path, tmp_path: Path) -> None:
    """It is one of ONNX Runtime in fp32, as all were, of an unknown version."""
    value = json.loads((written / "report.json").read_text(encoding="utf-8"))
    del value["unprofiled"]
    for layer in value["layers"]:
        del layer["runtime"], layer["precision"], layer["served"]
    (tmp_path / "older").write_text(json.dumps(value))

    found = read_report(tmp_path / "older")

    assert {analyse(layer).where for layer in found.layers} == {"onnxruntime, fp32"}


def test_what_follows_stands_beside_it(report: Report) -> None:
    """The summary for programs has an analysis a profile, and none where there is no profile."""
    found = summary_of(report, judge(report))["layers"]

    assert [(a["arm"], a["shape"]) for a in found] == [("block", "1x16"), ("block", "8x32")]
    assert "layers" not in summary_of(three_arms(), judge(three_arms()))


def test_the_page_shows_where_the_time_goes(written: Path) -> None:
    """A section, its picture, a sentence a shape, and the matrices at the largest shape."""
    reader = Reader((written / "report.html").read_text(encoding="utf-8"))
    text = " ".join(reader.text.split())

    assert (written / "layers-1.png").read_bytes().startswith(PNG)
    assert len(reader.addresses) == 4
    assert reader.open == []
    assert "Where the time of block goes" in text
    for said in ("at 1x16 in onnxruntime 1.24.0, fp32: faster, 1.11x", "at 8x32 in onnxruntime"):
        assert said in text
    assert "2.5x of 10x" in text


def test_a_profiled_report_may_be_replaced(written: Path, tmp_path: Path) -> None:
    """Its pictures are a report's own files, and others that look like them are not."""
    refuse_taken(written, overwrite=True)
    (tmp_path / "layers-final.png").write_bytes(PNG)

    with pytest.raises(NotWritten, match=r"layers-final\.png"):
        refuse_taken(tmp_path, overwrite=True)


def test_an_arm_that_was_left_out_is_named(report: Report, tmp_path: Path) -> None:
    """On the page and for programs, with the reason, and it comes back from the file."""
    why = "it runs in openvino"
    found = replace(report, unprofiled={"nm": why})

    page = write_report(found, tmp_path / "r").read_text(encoding="utf-8")

    assert f"nm: {why}." in page
    assert summary_of(found, judge(found))["unprofiled"] == {"nm": why}
    assert "unprofiled" not in summary_of(report, judge(report))
    assert read_report(tmp_path / "r" / "report.json") == found


def test_a_profile_of_no_arm_is_refused(report: Report) -> None:
    """What was profiled, or left out, must be in the comparison."""
    with pytest.raises(BadReport, match="lacks an arm that was profiled"):
        replace(report, layers=(replace(profile(), arm="other"),))
    with pytest.raises(BadReport, match="or left out"):
        replace(report, unprofiled={"other": "it is int8"})
