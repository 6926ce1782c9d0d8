"""The page and its pictures: whole in one file, with the numbers of the JSON."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from spd_deploy.benchmark.formatting import milliseconds
from spd_deploy.benchmark.judge import judge
from spd_deploy.benchmark.plot_latency import MAX_DOTS, thinned
from spd_deploy.benchmark.plot_speedup import speedup_figure
from spd_deploy.benchmark.plots import PLOTS, draw_plots
from spd_deploy.benchmark.publish import summary_of
from spd_deploy.benchmark.report import Report, read_report, text_from_report
from spd_deploy.benchmark.report_html import PageSection, html_from_report
from spd_deploy.benchmark.summary import headlines
from spd_deploy.benchmark.tables import calibration_table, host_latency_table
from spd_deploy.domain.calibration_error import CalibrationError
from spd_deploy.domain.temperature import TemperatureScaling
from tests.benchmark.made import NO_KERNEL, drawn, gathered, made_report, three_arms, three_judged

PNG = b"\x89PNG\r\n\x1a\n"
VOID = {"meta", "img", "br", "link", "input", "hr"}
HOSTILE = "<script>alert(1)</script> $\\x$ [a] [b"


class Reader(HTMLParser):
    """Collects text and addresses, and checks that every element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(report: Report, *sections: PageSection, plots: dict[str, bytes] | None = None) -> str:
    """The page, with stand-ins for pictures."""
    pictures = dict.fromkeys(PLOTS, PNG) if plots is None else plots
    judgement = three_judged() if report is three_arms() else judge(report)
    return html_from_report(report, judgement, pictures, extra_sections=sections)


@pytest.fixture(scope="module")
def report() -> Report:
    """Three arms at two shapes."""
    return three_arms()


@pytest.fixture(scope="module")
def plots(report: Report, rendered: None) -> dict[str, bytes]:
    """Their pictures."""
    return draw_plots(report, three_judged())


def test_every_plot_is_a_png(plots: dict[str, bytes]) -> None:
    """All pictures are drawn, each a PNG file."""
    assert sorted(plots) == sorted(PLOTS)
    assert all(png.startswith(PNG) and len(png) > 5000 for png in plots.values())


def test_without_a_baseline_no_speed_up_is_drawn(report: Report) -> None:
    """The picture of ratios is left out, and the page does not ask for it."""
    alone = replace(report, baselines=())
    plots = draw_plots(alone, judge(alone))

    assert sorted(plots) == ["latency.png", "size.png"]
    assert "Speed-up" not in re.findall(r"<h2>(.*?)</h2>", page_of(alone, plots=plots))


def test_the_page_loads_nothing_from_elsewhere(report: Report, plots: dict[str, bytes]) -> None:
    """No script, link, import or address but the pictures it holds."""
    page = page_of(report, plots=plots)
    reader = Reader(page)

    assert reader.open == []
    assert not reader.tags & {"script", "link", "iframe", "object", "embed"}
    assert reader.addresses
    assert all(a.startswith("data:image/png;base64,") for a in reader.addresses)
    assert not re.search(r"https?:|@import|url\(", page)


def test_the_page_holds_the_numbers_of_the_json(report: Report) -> None:
    """Every median, interval, rate and ratio that the JSON has is on the page."""
    text = " ".join(Reader(page_of(report)).text.split())

    for row in summary_of(report, three_judged())["rows"]:
        p50 = row["p50"]
        assert milliseconds(p50["value"]) in text
        assert f"[{milliseconds(p50['low'])}, {milliseconds(p50['high'])}]" in text
        assert f"{row['tokens_per_s']:,.0f}" in text
        if row["speed_up"]:
            assert f"{row['speed_up']['ratio']:.2f}x" in text
            assert row["speed_up"]["verdict"] in text


def test_the_page_says_why_and_what_to_caveat(report: Report) -> None:
    """The manifest's reason, the caveats, the machine and the hashes are there."""
    noisy = replace(report, conditions=replace(report.conditions, others_cores=3.0))
    text = Reader(page_of(noisy)).text

    for said in (NO_KERNEL, "other processes kept 3.0 of 4 cores busy", "Test CPU", "ab" * 32):
        assert said in text
    assert "None was found in the samples." in Reader(page_of(report)).text


def test_calibration_stands_dense_beside_sparse(report: Report, tmp_path: Path) -> None:
    """Each arm has its errors with and without its temperature; without any there is no table."""
    after = CalibrationError(expected=0.0543, brier=0.2886, confidence=0.8)
    found = TemperatureScaling(
        temperature=1.444,
        rows=367,
        split="dev",
        before=CalibrationError(expected=0.0967, brier=0.3038, confidence=0.9),
        after=after,
    )
    first, *others = report.arms
    known = replace(report, arms=(replace(first, calibration=found), *others))

    table = calibration_table(known)

    assert table is not None and calibration_table(report) is None
    assert table.rows[0] == (first.name, "dev", "0.0543", "0.2886", "1.444", "0.0967", "0.3038")
    assert set(table.rows[1][1:]) == {"-"}
    page = Reader(page_of(known)).text
    assert "Calibration" in page and "0.0543" in page
    (tmp_path / "r").write_text(text_from_report(known, {}), encoding="utf-8")
    assert read_report(tmp_path / "r") == known


def test_names_are_text_and_never_markup() -> None:
    """A folder's name with markup, dollars and brackets is shown as it is."""
    hostile = made_report(
        {"dense": drawn(0.01), HOSTILE: drawn(0.005), "_hidden": drawn(0.02)},
        arms=(gathered(HOSTILE),),
    )
    page = page_of(hostile, plots=draw_plots(hostile, judge(hostile)))
    reader = Reader(page)

    assert "script" not in reader.tags
    assert reader.text.count(HOSTILE) >= 3


def test_the_page_makes_one_claim(report: Report) -> None:
    """One heading is the claim; the other arms stand below it as a list."""
    page = page_of(report)

    (claim,) = re.findall(r"<h1>(.*?)</h1>", page)
    assert claim == headlines(report, three_judged())[0].statement
    (others,) = re.findall(r'<ul class="others">.*?</ul>', page, re.DOTALL)
    assert others.count("<li>") == len(report.others) - 1


def test_a_claim_from_unsteady_runs_is_not_bold_and_says_so() -> None:
    """Runs that scatter by more than a quarter are named beside the claim, with what to do."""
    report = made_report(
        {"dense": drawn(0.010), "block": drawn(0.002, spread=1.5)}, arms=(gathered(),)
    )

    page = page_of(report)

    assert '<h1 class="unsteady">' in page
    assert "Not steady:" in page
    assert "runs scatter by up to" in page
    assert "Measure again on an idle machine" in page


def test_every_cell_names_its_column(report: Report) -> None:
    """On a narrow screen, where the head of a table is gone, each cell says what it is."""
    page = page_of(report)
    (latency,) = re.findall(r'<table class="latency main">.*?</table>', page, re.DOTALL)

    columns = host_latency_table(report, three_judged()).columns
    for column in columns[1:]:
        assert latency.count(f'data-name="{column}"') == len(report.arms) * 2


def test_a_caller_adds_sections(report: Report) -> None:
    """Markup, a picture and its caption are put in under their title."""
    curves = PageSection(
        title="Training <curves>", html="<p>as it is</p>", png=PNG, caption="A loss"
    )
    words = PageSection(title="Notes", caption="Only words")
    page = page_of(report, curves, words)

    assert "<h2>Training &lt;curves&gt;</h2>" in page
    assert "<p>as it is</p>" in page
    assert page.count("A loss") == 2
    assert "<p>Only words</p>" in page
    assert Reader(page).open == []


def test_a_page_of_a_gpu_tells_of_it(report: Report) -> None:
    """On CUDA no thread count is claimed, and the copies are said to be in the time."""
    arms = tuple(
        replace(arm, runtime=replace(arm.runtime, device="cuda", threads=None))
        for arm in report.arms
    )
    settings = replace(report.settings, device="cuda", threads=None)
    text = Reader(page_of(replace(report, arms=arms, settings=settings))).text

    assert "on this GPU" in text
    assert "copies to the GPU and back" in text
    assert "unknown threads" in text


def test_the_latency_table_has_a_row_a_shape_and_arm(report: Report) -> None:
    """Rows come by shape, the baseline first and without a ratio."""
    table = host_latency_table(report, three_judged())

    assert [row[:2] for row in table.rows] == [
        (shape, arm) for shape in ("1x16", "8x32") for arm in ("dense", "block", "nm")
    ]
    assert table.columns[2:5] == ("p50 ms", "speed-up", "verdict")
    assert table.rows[0][3:5] == ("-", "baseline")
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_thinned_dots_keep_the_ends() -> None:
    """The fastest and slowest of many runs are drawn, and few runs are all drawn."""
    many = thinned([float(i) for i in range(1000)])

    assert len(many) == MAX_DOTS
    assert (many[0], many[-1]) == (0.0, 999.0)
    assert thinned([3.0, 1.0, 2.0]).tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(("fastest_s", "scale"), [(0.004, "linear"), (0.002, "log")])
def test_each_bar_stands_beside_its_arm(fastest_s: float, scale: str) -> None:
    """Arms are named at their bars, not in a legend; a span above 4 gets a logarithmic axis."""
    samples = {"dense": drawn(0.01), "a": drawn(0.01, seed=1), "b": drawn(fastest_s, seed=2)}
    report = made_report(samples)

    figure = speedup_figure(report, judge(report))

    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert not figure.legends
    assert axes.get_xscale() == scale
