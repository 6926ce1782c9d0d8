"""The report as one HTML file that needs nothing else: no script, no font, no picture by link."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from spd_deploy.benchmark.http.http_tables import (
    LATENCY_MEANS,
    answers_line,
    http_headlines,
    tables_of_http,
)
from spd_deploy.benchmark.http.judge_http import http_judgement_of
from spd_deploy.benchmark.judge import Judgement
from spd_deploy.benchmark.layers.analysis import analyse
from spd_deploy.benchmark.layers.layer_summary import LEGEND, explanation_of, notes_of, statement_of
from spd_deploy.benchmark.layers.layer_tables import matrix_table
from spd_deploy.benchmark.machine_tables import files_table, gpu_table, machine_table
from spd_deploy.benchmark.plot_latency import MAX_DOTS
from spd_deploy.benchmark.plots import layers_plot
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.stats import RESAMPLES
from spd_deploy.benchmark.summary import headlines, leading, runtimes_of
from spd_deploy.benchmark.tables import (
    Table,
    accuracy_table,
    calibration_table,
    device_details_table,
    device_table,
    host_latency_table,
    kernel_table,
    lowering_table,
    size_table,
    skipped_table,
)
from spd_deploy.benchmark.warnings import grouped
from spd_deploy.sessions.open import BF16_TOLERANCE
from spd_deploy.timing.speed_up import LEVEL, RESOLUTION

_TEMPLATE = "report.html.j2"


@dataclass(frozen=True, kw_only=True, slots=True)
class PageSection:
    """A part of the page that the caller adds, such as training curves.

    Attributes:
        html: markup that is inserted without escaping; the caller must trust it.
        png: a picture, shown below the markup.
        caption: a sentence below the picture, and its text for who cannot see it.
    """

    title: str
    html: str = ""
    png: bytes | None = None
    caption: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpSection:
    """The part of the page on what the arms do behind HTTP."""

    headlines: tuple[str, ...]
    tables: tuple[Table, ...]
    answers: str
    latency: str = LATENCY_MEANS


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSection:
    """The part of the page on the operators of one profiled arm."""

    arm: str
    lines: tuple[str, ...]
    png: bytes
    table: Table
    shape: str
    notes: tuple[str, ...]


def html_from_report(
    report: Report,
    judgement: Judgement,
    plots: Mapping[str, bytes],
    *,
    extra_sections: Sequence[PageSection] = (),
) -> str:
    """The whole page; ``plots`` are PNG pictures by the names that ``plots.draw_plots`` gives."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["picture"] = picture
    lines, first = headlines(report, judgement), leading(report, judgement)
    source = resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(
        report=report,
        claim=lines[first],
        others=[line for number, line in enumerate(lines) if number != first],
        latency=host_latency_table(report, judgement),
        sizes=size_table(report),
        lowering=lowering_table(report),
        accuracy=accuracy_table(report),
        calibration=calibration_table(report),
        machine=machine_table(report),
        files=files_table(report),
        device=device_table(report, judgement),
        details=device_details_table(judgement),
        kernels=kernel_table(report),
        skipped=skipped_table(report),
        gpu=gpu_table(report),
        caveats=grouped(judgement.caveats),
        plots=plots,
        runtimes=runtimes_of(report),
        bf16_tolerance=BF16_TOLERANCE,
        layers=layer_sections(report, plots),
        http=http_section(report),
        legend=LEGEND,
        extra_sections=extra_sections,
        level=LEVEL,
        resamples=RESAMPLES,
        resolution=RESOLUTION,
        most_dots=MAX_DOTS,
    )


def http_section(report: Report) -> HttpSection | None:
    """The part of the page on HTTP; None where it was not measured."""
    judged = http_judgement_of(report)
    if report.http is None or judged is None:
        return None
    return HttpSection(
        headlines=http_headlines(report, judged),
        tables=tables_of_http(report.http, judged),
        answers=answers_line(judged),
    )


def layer_sections(report: Report, plots: Mapping[str, bytes]) -> tuple[LayerSection, ...]:
    """A part of the page for each profiled arm; its table is of the shape with the most tokens."""
    sections = []
    for number, arm in enumerate(report.profiled, 1):
        profiles = [profile for profile in report.layers if profile.arm == arm]
        analyses = [analyse(profile) for profile in profiles]
        largest = max(range(len(profiles)), key=lambda i: profiles[i].shape.tokens)
        sections.append(
            LayerSection(
                arm=arm,
                lines=tuple(f"{statement_of(a)}. {explanation_of(a)}." for a in analyses),
                png=plots[layers_plot(number)],
                table=matrix_table(analyses[largest], every=False, marks={}),
                shape=analyses[largest].shape,
                notes=tuple(dict.fromkeys(note for a in analyses for note in notes_of(a))),
            )
        )
    return tuple(sections)


def picture(png: bytes) -> str:
    """A PNG file as the address of itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
