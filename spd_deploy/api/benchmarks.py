"""``spd.bench``: artefacts measured in turns with a dense baseline, and a report of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spd_deploy.api.display import Displayed, ResultTable, ResultView
from spd_deploy.api.http_values import (
    DEFAULT_BOUND_MS,
    DEFAULT_FAIL_BELOW,
    CompareOptions,
    HttpOptions,
    new_report_in,
)
from spd_deploy.api.notes import NoteRecorder
from spd_deploy.api.values import (
    DEVICE,
    ROUNDS,
    RUNTIME,
    SECONDS,
    THREADS,
    read_flag,
    read_model,
    read_path,
    read_sizes,
    read_text,
    read_words,
)
from spd_deploy.domain.errors import OptionConflict
from spd_deploy.domain.extras import needs_extras
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES

if TYPE_CHECKING:
    from spd_deploy.benchmark.judge import Judgement
    from spd_deploy.benchmark.records import BenchmarkSettings
    from spd_deploy.benchmark.regression import ReportComparison
    from spd_deploy.benchmark.report import Report
    from spd_deploy.benchmark.tables import Table


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class BenchResult(Displayed):
    """The result of a benchmark.

    Attributes:
        page: the report to read, ``report.html``; ``report.json`` beside it has every sample. None
            where two reports were compared and nothing was measured.
        report: the machine, the settings, the arms and every sample.
        judgement: percentiles, speed-ups with their verdicts, and caveats.
        notes: messages of the run.
        comparison: with an earlier report, row by row; None where none was asked for. It does not
            raise: its ``failed`` has the rows below the limit.
    """

    page: Path | None
    report: "Report"
    judgement: "Judgement"
    notes: tuple[str, ...] = ()
    comparison: "ReportComparison | None" = None

    @property
    def headlines(self) -> tuple[str, ...]:
        """The result of each arm in a sentence."""
        from spd_deploy.benchmark.summary import headlines

        return tuple(map(str, headlines(self.report, self.judgement)))

    def to_json(self) -> dict[str, Any]:
        """What ``spd bench --json`` prints."""
        from spd_deploy.benchmark.publish import summary_of

        page = None if self.page is None else str(self.page)
        value = {"report": page, **summary_of(self.report, self.judgement)}
        if self.comparison is not None:
            value["comparison"] = self.comparison.to_json()
        return value

    def view(self) -> ResultView:
        """The headlines, the latency of each arm at each shape, the sizes and the caveats."""
        from spd_deploy.benchmark.warnings import grouped

        tables = self.tables()
        caveats = grouped(self.judgement.caveats).items()
        return ResultView(
            title=" ".join(self.headlines),
            tables=[ResultTable(title=t.title, columns=t.columns, rows=t.rows) for t in tables],
            lines=(
                *(f"caveat: {what} ({'; '.join(about)})" for what, about in caveats),
                *([] if self.page is None else [f"report: {self.page}"]),
            ),
        )

    def tables(self) -> "list[Table]":
        """Everything that is shown as a table; of two compared reports only the comparison."""
        from spd_deploy.benchmark.regression import comparison_table
        from spd_deploy.benchmark.tables import terminal_tables

        measured = () if self.page is None else terminal_tables(self.report, self.judgement)
        compared = () if self.comparison is None else (comparison_table(self.comparison),)
        return [*measured, *self.http_tables(), *compared]

    def http_tables(self) -> "tuple[Table, ...]":
        """The tables of what was measured through HTTP; none where nothing was."""
        from spd_deploy.benchmark.http.http_tables import tables_of_http
        from spd_deploy.benchmark.http.judge_http import http_judgement_of

        judged = http_judgement_of(self.report)
        if self.page is None or self.report.http is None or judged is None:
            return ()
        return tables_of_http(self.report.http, judged)


@needs_extras("bench", "bench")
def bench(
    artefacts: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    output: str | PathLike[str] | None = None,
    baseline: str | PathLike[str] | None = None,
    batch: int | Sequence[int] = (1, 8),
    seq: int | Sequence[int] = (32, 128),
    runtime: str | Sequence[str] = ("auto",),
    device: Literal["cpu", "cuda"] = "cpu",
    dense: str | None = None,
    threads: int | None = None,
    rounds: int = 6,
    seconds: float = 5.0,
    profile: bool = False,
    http: bool = False,
    url: str | Sequence[str] = (),
    api_key_file: str | PathLike[str] | None = None,
    rates: Sequence[float] | None = None,
    latency_bound: float = DEFAULT_BOUND_MS,
    price_per_hour: float | None = None,
    compare: str | PathLike[str] | None = None,
    fail_below: float = DEFAULT_FAIL_BELOW,
    compare_times: bool = False,
    overwrite: bool = False,
    progress: bool | Progress = False,
) -> BenchResult:
    """Measure artefacts in turns with a baseline, and write a report.

    Args:
        artefacts: the folder of an artefact, or several. With ``compare`` a second report: then
            nothing is measured.
        output: the folder for the report.
        baseline: what to compare with: an artefact, or a checkpoint, which is exported dense first.
            Without one no speed-up is claimed.
        batch: numbers of rows to measure at.
        seq: numbers of tokens to measure at.
        runtime: what runs the artefacts; of several, each artefact is measured in each.
        device: ``cpu``, or ``cuda`` for a GPU.
        dense: on a GPU: which dense arms of the baseline to compare with; all by default.
        threads: threads of the runtime; by default the cores that this process may use.
        rounds: how often the arms take turns.
        seconds: time for one arm at one shape, all rounds together.
        profile: also tell where each sparse arm gains and loses.
        http: also measure each arm behind ``spd serve``, through HTTP.
        url: servers that run already, instead of those that are started.
        api_key_file: file with the API key of the servers at ``url``; by default the key is in the
            environment variable ``SPD_API_KEY``, if they want one.
        rates: requests a second at which single texts arrive.
        latency_bound: milliseconds; the highest rate whose p99 is within them is searched for.
        price_per_hour: of this machine, for the cost of a million requests.
        compare: an earlier report to compare with. The result's ``comparison`` has the rows.
        fail_below: the least ratio of a new value to the old one.
        compare_times: also compare absolute times, not only ratios against the dense arm.
        overwrite: replace an earlier report.
        progress: show bars and notes on standard error, or tell a listener of your own.

    Raises:
        BadArtefact: nothing there, damaged files, or an artefact that reads shorter texts.
        BadReport: ``compare`` is no report, or one of another machine or other arms.
        OptionConflict: a setting that goes with another device.
        NotWritten: ``output`` exists.
        Unavailable: the device is not there.
    """
    from spd_deploy.benchmark.judge import judge
    from spd_deploy.benchmark.publish import refuse_taken, write_report
    from spd_deploy.benchmark.records import BenchmarkSettings, Shape
    from spd_deploy.domain.cores import default_threads

    many = [artefacts] if isinstance(artefacts, str | PathLike) else list(artefacts)
    compared = _Compared(
        artefacts=tuple(read_model("artefacts", one) for one in many),
        baseline=None if baseline is None else read_model("baseline", baseline),
        runtimes=read_words(RUNTIME, "runtime", runtime),
        dense=None if dense is None else read_text("dense", dense),
        profile=read_flag("profile", profile),
    )
    asked = HttpOptions.read(http, url, rates, latency_bound, price_per_hour, api_key_file)
    comparing = CompareOptions.read(compare, fail_below, compare_times)
    if (second := new_report_in(compared.artefacts, comparing)) is not None:
        _refuse_output(output)
        return BenchResult(
            page=None,
            report=second,
            judgement=judge(second),
            comparison=comparing.with_new(second),
        )
    on_gpu = DEVICE.read("device", device) == "cuda"
    if threads is not None:
        threads = THREADS.read("threads", threads)
    shapes = Shape.grid(read_sizes("batch", batch), read_sizes("seq", seq))
    _refuse_other_device(compared, threads, on_gpu=on_gpu)
    folder = _place("output", output)
    refuse_taken(folder, overwrite=read_flag("overwrite", overwrite))
    settings = BenchmarkSettings(
        shapes=shapes,
        device=device,
        threads=threads or (None if on_gpu else default_threads()),
        rounds=ROUNDS.read("rounds", rounds),
        seconds=SECONDS.read("seconds", seconds),
    )
    recorder = NoteRecorder(progress)
    report = _measured(compared, settings, asked, recorder)
    judgement = judge(report)
    page = write_report(report, folder, overwrite=overwrite, judgement=judgement)
    return BenchResult(
        page=page,
        report=report,
        judgement=judgement,
        notes=recorder.notes,
        comparison=comparing.with_new(report),
    )


def _place(name: str, value: str | PathLike[str] | None) -> Path:
    """The folder for the report.

    Raises:
        OptionConflict: none is named.
    """
    if value is None:
        raise OptionConflict(
            "Missing option '--output'",
            got="nothing",
            fix="name a folder for the report, or compare two reports with --compare",
        )
    return read_path(name, value)


def _refuse_output(output: object) -> None:
    """Refuse a place for a report where none is written.

    Raises:
        OptionConflict: one is named.
    """
    if output is not None:
        raise OptionConflict(
            "two reports are compared and no report is written",
            got=f"--output {output}",
            fix="leave --output out",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Compared:
    """The arms of a measurement, and their baseline.

    Attributes:
        dense: with a GPU, the names of the dense arms of the baseline.
    """

    artefacts: tuple[Path, ...]
    baseline: Path | None
    runtimes: tuple[str, ...]
    dense: str | None
    profile: bool


def _refuse_other_device(compared: _Compared, threads: int | None, *, on_gpu: bool) -> None:
    """Refuse settings that would be ignored on the device, and a benchmark of nothing.

    Raises:
        OptionConflict: one of them is given.
    """
    if not compared.artefacts:
        raise OptionConflict("there is nothing to measure", got="no artefact", fix="name one")
    if not on_gpu and compared.dense is not None:
        raise OptionConflict(
            "--dense goes with --device cuda",
            got="--device cpu",
            fix="leave --dense out: on a CPU the baseline has one dense form",
        )
    if on_gpu and compared.profile:
        raise OptionConflict(
            "--profile times operators on the CPU, so it goes with --device cpu",
            got="--device cuda",
            fix="leave one of them out",
        )
    if on_gpu and threads is not None:
        raise OptionConflict(
            "--threads goes with --device cpu", got="--device cuda", fix="leave --threads out"
        )


def _measured(
    compared: _Compared, settings: "BenchmarkSettings", asked: HttpOptions, progress: Progress
) -> "Report":
    """Measure the artefacts in turns with the baseline.

    Raises:
        OptionConflict: dense arms are named, and the baseline is not a checkpoint.
    """
    from spd_deploy.benchmark.compare import compare_artefacts
    from spd_deploy.benchmark.dense.dense_arms import parse_dense
    from spd_deploy.domain.artefact import is_artefact

    baseline, dense = compared.baseline, compared.dense
    names = parse_dense("all" if dense is None else dense)
    if dense not in (None, "none") and (baseline is None or is_artefact(baseline)):
        raise OptionConflict(
            "--dense goes with a checkpoint as --baseline",
            got=baseline or "no --baseline",
            fix="name the checkpoint of the dense model, or leave --dense out",
        )
    return compare_artefacts(
        compared.artefacts,
        settings,
        baseline=baseline,
        runtime_choices=[RUNTIME_CHOICES[name] for name in compared.runtimes],
        dense=names,
        profile=compared.profile,
        http=asked.settings,
        urls=asked.urls,
        api_key=asked.api_key,
        progress=progress,
    )
