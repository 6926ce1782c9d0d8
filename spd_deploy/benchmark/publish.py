"""Writes the folder of a report: ``report.json``, ``report.html`` and the plots."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spd_deploy.benchmark.http.http_tables import http_headlines
from spd_deploy.benchmark.http.judge_http import http_judgement_of
from spd_deploy.benchmark.judge import Judgement, judge
from spd_deploy.benchmark.layers.analysis import analyse
from spd_deploy.benchmark.layers.layer_summary import analysis_to_json
from spd_deploy.benchmark.plots import PLOTS, draw_plots
from spd_deploy.benchmark.report import Report, text_from_report
from spd_deploy.benchmark.report_html import PageSection, html_from_report
from spd_deploy.benchmark.summary import headlines
from spd_deploy.domain.files import refuse_foreign, replacing

JSON_FILE = "report.json"
HTML_FILE = "report.html"
WRITTEN = frozenset({JSON_FILE, HTML_FILE, *PLOTS})


def refuse_taken(folder: Path, *, overwrite: bool) -> None:
    """Refuse a place for a report, before the time for measuring is spent.

    Raises:
        NotWritten: something is there already that is not to be replaced, or never is.
    """
    refuse_foreign(folder, overwrite=overwrite, what="report", ours=_ours)


def _ours(name: str) -> bool:
    """Whether a report has a file of this name; how many plots of layers depends on its arms."""
    return name in WRITTEN or re.fullmatch(r"layers-\d+\.png", name) is not None


def summary_of(report: Report, judgement: Judgement) -> dict[str, Any]:
    """The judgement of a report for programs: headlines, rows with verdicts, and caveats."""
    lines = [str(headline) for headline in headlines(report, judgement)]
    layers = [analysis_to_json(analyse(profile)) for profile in report.layers]
    value = {"headlines": lines, "baseline": report.baseline, **judgement.to_json()}
    if (over_http := http_judgement_of(report)) is not None:
        first = {"headlines": list(http_headlines(report, over_http))}
        value |= {"http": {**first, **over_http.to_json()}}
    value |= {"unprofiled": dict(report.unprofiled)} if report.unprofiled else {}
    return {**value, "layers": layers} if layers else value


def write_report(
    report: Report,
    folder: Path,
    *,
    overwrite: bool = False,
    extra_sections: Sequence[PageSection] = (),
    judgement: Judgement | None = None,
) -> Path:
    """Write ``report.json``, ``report.html`` and the plots, all or none; returns the page.

    Args:
        report: what was measured.
        folder: becomes the report's folder.
        overwrite: replace what is there.
        extra_sections: the caller's own parts of the page.
        judgement: of this report, where it is at hand already.

    Raises:
        NotWritten: something is there already, or the disk refused.
    """
    refuse_taken(folder, overwrite=overwrite)
    judgement = judgement or judge(report)
    plots = draw_plots(report, judgement)
    page = html_from_report(report, judgement, plots, extra_sections=extra_sections)
    derived = summary_of(report, judgement)
    with replacing(folder) as draft:
        draft.mkdir()
        (draft / JSON_FILE).write_text(text_from_report(report, derived), encoding="utf-8")
        (draft / HTML_FILE).write_text(page, encoding="utf-8")
        for name, content in plots.items():
            (draft / name).write_bytes(content)
    return folder / HTML_FILE
