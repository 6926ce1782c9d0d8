"""``spd.bench``: artefacts measured in turns with a dense baseline, and a report of it."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spd_deploy.api.display import Displayed, ResultTable, ResultView
from spd_deploy.api.notes import NoteRecorder
from spd_deploy.api.values import (
    DEVICE,
    ROUNDS,
    RUNTIME,
    SECONDS,
    THREADS,
    read_flag,
    read_path,
    read_sizes,
    read_text,
    read_words,
)
from spd_deploy.domain.errors import OptionConflict
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES

if TYPE_CHECKING:
    from spd_deploy.benchmark.judge import Judgement
    from spd_deploy.benchmark.records import Settings
    from spd_deploy.benchmark.report import Report


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class BenchResult(Displayed):
    """What a benchmark measured.

    Attributes:
        page: the report to read, ``report.html``; ``report.json`` beside it has every sample.
        report: the machine, the settings, the arms and every sample.
        judgement: percentiles, speed-ups with their verdicts, and doubts.
        notes: what was said on the way.
    """

    page: Path
    report: "Report"
    judgement: "Judgement"
    notes: tuple[str, ...] = ()

    @property
    def headlines(self) -> tuple[str, ...]:
        """What the run shows of each arm, in a sentence."""
        from spd_deploy.benchmark.summary import headlines

        return tuple(map(str, headlines(self.report, self.judgement)))

    def to_json(self) -> dict[str, Any]:
        """What ``spd bench --json`` prints."""
        from spd_deploy.benchmark.publish import summary_of

        return {"report": str(self.page), **summary_of(self.report, self.judgement)}

    def view(self) -> ResultView:
        """The headlines, the latency of each arm at each shape, the sizes and the doubts."""
        from spd_deploy.benchmark.tables import latency_table, size_table
        from spd_deploy.benchmark.warnings import grouped

        tables = (latency_table(self.report, self.judgement), size_table(self.report))
        doubts = grouped(self.judgement.doubts).items()
        return ResultView(
            title=" ".join(self.headlines),
            tables=[ResultTable(title=t.title, columns=t.columns, rows=t.rows) for t in tables],
            lines=(
                *(f"doubt: {what} ({'; '.join(about)})" for what, about in doubts),
                f"report: {self.page}",
            ),
        )


def bench(
    artefacts: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    output: str | PathLike[str],
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
    overwrite: bool = False,
    progress: bool | Progress = False,
) -> BenchResult:
    """Measure artefacts in turns with a baseline, and write a report.

    Args:
        artefacts: the folder of an artefact, or several.
        output: the folder for the report.
        baseline: what to compare with: an artefact, or a checkpoint, which is exported dense first.
            Without one no speed-up is claimed.
        batch: numbers of rows to measure at.
        seq: numbers of tokens to measure at.
        runtime: what runs the artefacts; of several, each artefact is measured in each.
        device: ``cpu``, or ``cuda`` for a GPU.
        dense: on a GPU: which dense forms of the baseline to compare with; all by default.
        threads: threads of the runtime; by default the cores that this process may use.
        rounds: how often the arms take turns.
        seconds: time for one arm at one shape, all rounds together.
        profile: also tell where each sparse arm gains and loses.
        overwrite: replace an earlier report.
        progress: show bars and notes on standard error, or tell a listener of your own.

    Raises:
        BadArtefact: nothing there, damaged files, or an artefact that reads shorter texts.
        OptionConflict: a setting that goes with another device.
        NotWritten: ``output`` exists.
        Unavailable: the device is not there.
    """
    from spd_deploy.benchmark.judge import judge
    from spd_deploy.benchmark.publish import refuse_taken, write_report
    from spd_deploy.benchmark.records import Settings, Shape
    from spd_deploy.domain.cores import default_threads

    many = [artefacts] if isinstance(artefacts, str | PathLike) else list(artefacts)
    compared = _Compared(
        artefacts=tuple(read_path("artefacts", one) for one in many),
        baseline=None if baseline is None else read_path("baseline", baseline),
        runtimes=read_words(RUNTIME, "runtime", runtime),
        dense=None if dense is None else read_text("dense", dense),
        profile=read_flag("profile", profile),
    )
    on_gpu = DEVICE.read("device", device) == "cuda"
    if threads is not None:
        threads = THREADS.read("threads", threads)
    shapes = Shape.grid(read_sizes("batch", batch), read_sizes("seq", seq))
    _refuse_other_device(compared, threads, on_gpu=on_gpu)
    folder = read_path("output", output)
    refuse_taken(folder, overwrite=read_flag("overwrite", overwrite))
    settings = Settings(
        shapes=shapes,
        device=device,
        threads=threads or (None if on_gpu else default_threads()),
        rounds=ROUNDS.read("rounds", rounds),
        seconds=SECONDS.read("seconds", seconds),
    )
    recorder = NoteRecorder(progress)
    report = (_measured_on_gpu if on_gpu else _measured)(compared, settings, recorder)
    judgement = judge(report)
    page = write_report(report, folder, overwrite=overwrite, judgement=judgement)
    return BenchResult(page=page, report=report, judgement=judgement, notes=recorder.notes)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Compared:
    """What is measured, and against what.

    Attributes:
        dense: with a GPU, the names of the dense forms of the baseline.
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


def _measured(compared: _Compared, settings: "Settings", progress: Progress) -> "Report":
    """Open the arms, the baseline first, and compare them."""
    from spd_deploy.benchmark.arms import arms_of, refuse_long, refuse_unreadable
    from spd_deploy.benchmark.run import baseline_from, run_benchmark
    from spd_deploy.domain.artefact import open_artefact

    opened = [open_artefact(path) for path in compared.artefacts]
    choices = [RUNTIME_CHOICES[name] for name in compared.runtimes]
    refuse_long(arms_of(opened, choices), settings)  # before a baseline is exported for nothing
    refuse_unreadable(arms_of(opened, choices))
    baseline = compared.baseline
    with ExitStack() as stack:
        if baseline is not None:
            opened.insert(0, stack.enter_context(baseline_from(baseline, progress=progress)))
        arms = arms_of(opened, choices)
        name = None if baseline is None else arms[0].name
        return run_benchmark(
            arms, settings, baseline=name, profile=compared.profile, progress=progress
        )


def _measured_on_gpu(compared: _Compared, settings: "Settings", progress: Progress) -> "Report":
    """The same on a GPU, against the fastest dense form of the baseline.

    An artefact as the baseline has no other forms; it takes part as the first.
    """
    from spd_deploy.benchmark.arms import arms_of, refuse_long, refuse_unreadable
    from spd_deploy.benchmark.cuda.compare import compare_on_gpu, refuse_off_gpu
    from spd_deploy.benchmark.cuda.dense import DenseModel, parse_dense
    from spd_deploy.benchmark.cuda.place import refuse_without_cuda
    from spd_deploy.benchmark.memory import memory_of
    from spd_deploy.domain.artefact import is_artefact, open_artefact
    from spd_deploy.domain.checkpoint import open_checkpoint

    baseline, dense = compared.baseline, compared.dense
    names = parse_dense("all" if dense is None else dense)
    exported = [baseline] if baseline is not None and is_artefact(baseline) else []
    if dense not in (None, "none") and (baseline is None or exported):
        raise OptionConflict(
            "--dense goes with a checkpoint as --baseline",
            got=baseline or "no --baseline",
            fix="name the checkpoint of the dense model, or leave --dense out",
        )
    checkpoint = None if baseline is None or exported else open_checkpoint(baseline)
    opened = [open_artefact(path) for path in (*exported, *compared.artefacts)]
    arms = arms_of(opened, [RUNTIME_CHOICES[name] for name in compared.runtimes])
    refuse_long(arms, settings)
    refuse_unreadable(arms)
    refuse_off_gpu(arms)
    refuse_without_cuda()
    with tempfile.TemporaryDirectory(prefix="spd-bench-") as scratch:
        model = None if checkpoint is None else DenseModel.of(checkpoint, Path(scratch))
        return compare_on_gpu(arms, model, names, settings, weigh=memory_of, progress=progress)
