"""The report's folder: whole or not at all, and over nothing but an earlier one."""

import json
from pathlib import Path

import pytest

from spd_deploy.benchmark.publish import WRITTEN, summary_of, write_report
from spd_deploy.benchmark.report import SCHEMA, Report
from spd_deploy.benchmark.report_html import PageSection
from spd_deploy.domain.errors import NotWritten
from tests.benchmark.made import three_arms, three_judged


@pytest.fixture(scope="module")
def report() -> Report:
    """Three arms."""
    return three_arms()


def test_a_report_is_json_page_and_pictures(report: Report, tmp_path: Path) -> None:
    """The folder holds just these, the JSON with what was judged, the page with what was added."""
    page = write_report(
        report,
        tmp_path / "r",
        extra_sections=[PageSection(title="Added here")],
        judgement=three_judged(),
    )

    assert page == tmp_path / "r" / "report.html"
    assert {file.name for file in (tmp_path / "r").iterdir()} == WRITTEN
    value = json.loads((tmp_path / "r" / "report.json").read_text(encoding="utf-8"))
    assert value["judgement"] == summary_of(report, three_judged())
    assert "Added here" in page.read_text(encoding="utf-8")


def test_an_earlier_report_is_replaced_when_asked(report: Report, tmp_path: Path) -> None:
    """Without overwrite it is refused, with it replaced whole."""
    (tmp_path / "report.json").write_text("old")
    with pytest.raises(NotWritten, match="already exists"):
        write_report(report, tmp_path)
    write_report(report, tmp_path, overwrite=True, judgement=three_judged())

    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["schema"] == SCHEMA


@pytest.mark.parametrize("name", ["thesis.tex", ".git", "model.onnx"])
def test_what_is_no_report_is_never_replaced(name: str, report: Report, tmp_path: Path) -> None:
    """A folder with anything else in it stays, even with overwrite."""
    (tmp_path / name).write_text("years of work")
    (tmp_path / "report.json").write_text("{}")

    with pytest.raises(NotWritten, match="is not an earlier report, so it is not replaced"):
        write_report(report, tmp_path, overwrite=True)
    assert (tmp_path / name).read_text() == "years of work"


def test_a_file_is_never_replaced(report: Report, tmp_path: Path) -> None:
    """A path that holds a file is refused, even with overwrite."""
    file = tmp_path / "notes"
    file.write_text("mine")

    with pytest.raises(NotWritten, match="is not an earlier report"):
        write_report(report, file, overwrite=True)
    assert file.read_text() == "mine"


def test_an_empty_folder_is_taken(report: Report, tmp_path: Path) -> None:
    """A folder with nothing in it needs no overwrite."""
    assert write_report(report, tmp_path, judgement=three_judged()).is_file()
