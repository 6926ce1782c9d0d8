"""The whole grid on a GPU, in a limited time: dense and sparse BERT shapes, and break-even maps.

BERT-base and BERT-large sizes with random weights, in fp16, batch 1, 8, 32, 128 x 128 and 384
tokens: blocks at 90 % and 75 % and 2:4, in every form that this version exports for GPUs, against
the fastest dense form of the machine. Where TensorRT works, engines of all of them, the dense model
among them, are built for each shape, one draw each. It needs neither network nor data.

    python -m benchmarks.gpu --minutes 25 --output DIR
    python -m benchmarks.gpu --minutes 10 --models base --dense eager,compile --output DIR

The most important rows come first. Each is written when it is measured, as a folder with its report
and a line in ``rows.jsonl``, so an interrupted run keeps them. A row that could not be run, or was
not reached in time, has a line with the reason. No row is estimated. The script does not change the
card's settings.
"""

import argparse
import json
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.shapes import checkpoint_of
from exporters.export import ExportRequest, artefact_from_checkpoint
from exporters.precision import Precision
from exporters.tensorrt.build import BuildRequest, build_engine
from exporters.tensorrt.engine_format import engine_format
from exporters.torch.export import torch_artefact_from_checkpoint
from spd_deploy.benchmark.artefact_arms import arms_of
from spd_deploy.benchmark.breakeven.map_plan import MapPlan, model_parts, patterns_of
from spd_deploy.benchmark.breakeven.publish_map import write_map
from spd_deploy.benchmark.breakeven.run_map import measure_map
from spd_deploy.benchmark.compare import dense_names, engines_of
from spd_deploy.benchmark.dense.dense_arms import (
    ENGINES,
    NAMES,
    DenseModel,
    dense_arms,
    parse_dense,
)
from spd_deploy.benchmark.judge import judge
from spd_deploy.benchmark.publish import write_report
from spd_deploy.benchmark.records import BenchmarkSettings, Shape, Skipped
from spd_deploy.benchmark.report import Report
from spd_deploy.benchmark.rows import LatencyRow
from spd_deploy.benchmark.run import run_benchmark
from spd_deploy.cli.console import TerminalProgress
from spd_deploy.domain.artefact import Artefact, is_artefact, open_artefact
from spd_deploy.domain.checkpoint import SPD_FILE, Checkpoint, open_checkpoint
from spd_deploy.domain.errors import SpdError, reason_of
from spd_deploy.domain.patterns import NM, Block, Pattern
from spd_deploy.sessions.cuda.pytorch import refuse_without_cuda
from spd_deploy.sessions.onnxruntime import onnxruntime_for
from spd_deploy.sessions.tensorrt.compatibility import engine_fault
from spd_deploy.timing.host_clock import Effort

PATTERNS: dict[str, Pattern] = {
    "block-64x1-90": Block(rows=64, columns=1, sparsity=0.9),
    "block-64x1-75": Block(rows=64, columns=1, sparsity=0.75),
    "2-4": NM(n=2, m=4),
}
BATCHES, SEQS = (1, 8, 32, 128), (128, 384)
LONGEST = max(SEQS)
# What a row is worth: large batches of short texts first, for which most is promised.
_FIRST = (Shape(batch=32, seq=128), Shape(batch=1, seq=128), Shape(batch=128, seq=128))
_MAP_TOKENS = (128, 1024, 4096, 16384)

Line = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One thing to measure; its work returns the lines for ``rows.jsonl``."""

    name: str
    work: Callable[[], Iterable[Line]]


def main() -> None:
    """Refuse without a GPU, then do the jobs in the order of their worth."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--models", nargs="+", choices=("base", "large"), default=["base", "large"])
    parser.add_argument("--dense", default=",".join(NAMES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="an arm and shape, a clock")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    try:
        refuse_without_cuda()
        names = parse_dense(options.dense)
    except SpdError as err:
        raise SystemExit(f"benchmarks.gpu: {err}") from err
    options.output.mkdir(parents=True, exist_ok=True)
    progress = TerminalProgress()
    with tempfile.TemporaryDirectory(prefix="spd-gpu-") as scratch:
        grid = Grid(
            scratch=Path(scratch),
            output=options.output,
            dense=names,
            rounds=options.rounds,
            seconds=options.seconds,
        )
        jobs = [
            Job(name=name, work=partial(in_child, grid, tuple(options.models), name))
            for name in grid.jobs(options.models)
        ]
        with (options.output / "rows.jsonl").open("a", encoding="utf-8") as rows:
            for line in do(jobs, budget_s=60 * options.minutes, clock=perf_counter):
                rows.write(json.dumps(line) + "\n")
                rows.flush()
                progress.note(line_text(line))


def in_child(grid: "Grid", models: Sequence[str], name: str) -> list[Line]:
    """The lines of a job, done in a process of its own.

    What traces kernels stays attached to the driver until its process ends, and slows launches
    down; a fault of the GPU lasts as long.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(lines_in_child, grid, models, name).result()


def lines_in_child(grid: "Grid", models: Sequence[str], name: str) -> list[Line]:
    """The same, here; what does not run has a line with the reason, as errors do not all travel."""
    lines: list[Line] = []
    try:
        lines.extend(grid.jobs(models)[name]())
    except Exception as err:  # noqa: BLE001 - the jobs after it are to run, whatever this one meets
        lines.append({"not_run": reason_to_tell(err)})
    return lines


def do(
    jobs: Sequence[Job], *, budget_s: float, clock: Callable[[], float]
) -> Iterator[dict[str, Any]]:
    """The lines of each job as it is done; those that fail or come too late, with the reason."""
    begun, took = clock(), dict[str, float]()
    for job in jobs:
        at, kind = clock(), job.name.split()[0]
        if budget_s - (at - begun) <= took.get(kind, 0.0):  # as long as the last of its kind took
            yield {"job": job.name, "not_run": f"the {budget_s / 60:g} minutes were up"}
            continue
        try:
            for line in job.work():
                yield {"job": job.name, **line}
        except Exception as err:  # noqa: BLE001 - a lost process, or what does not travel from it
            yield {"job": job.name, "not_run": reason_to_tell(err)}
        took[kind] = clock() - at


def reason_to_tell(err: Exception) -> str:
    """Why a job ended; of what is no refusal of ours, stderr has the traceback."""
    if not isinstance(err, SpdError):
        traceback.print_exception(err)
    return reason_of(err)


def shapes_by_worth() -> tuple[Shape, ...]:
    """The grid's shapes, the ones that say most first, then the smaller ones first."""
    rest = sorted(set(Shape.grid(BATCHES, SEQS)) - set(_FIRST), key=lambda s: (s.seq, s.tokens))
    return (*_FIRST, *rest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """What all jobs share: where files lie, how to measure, what to compare with."""

    scratch: Path
    output: Path
    dense: tuple[str, ...]
    rounds: int
    seconds: float

    def jobs(self, models: Sequence[str]) -> dict[str, Callable[[], Iterator[Line]]]:
        """By name: three shapes of the first model, the maps, three of the others, then the rest.

        To draw, prune and export a large model takes minutes, which the maps do not wait for.
        """
        shapes, first = shapes_by_worth(), len(_FIRST)
        rows = [
            (f"{model} {shape}", partial(self.row, model, shape))
            for part in (shapes[:first], shapes[first:])
            for model in models
            for shape in part
        ]
        maps = [(f"map {model}", partial(self.map, model)) for model in models]
        return dict((*rows[:first], *maps, *rows[first:]))

    def row(self, model: str, shape: Shape) -> Iterator[Line]:
        """One shape of one model: every arm in turns, its report written, a line an arm."""
        settings = BenchmarkSettings(
            shapes=(shape,), device="cuda", rounds=self.rounds, seconds=self.seconds
        )
        names = tuple(name for name in self.dense if name not in ENGINES)
        with tempfile.TemporaryDirectory(prefix="engines-", dir=self.scratch) as engines:
            made = made_of(self.scratch, model)
            built, skipped = engines_for(
                made.checkpoints,
                Path(engines),
                shape,
                dense=tuple(name for name in self.dense if name in ENGINES),
            )
            exported = arms_of((*made.exported, *built))
            sources = [arm.source for arm in exported if arm.source is not None]
            forms, lacking = dense_arms(made.dense, names, engines=engines_of(sources))
            # Dense arms are not weighed on the host, so neither are the others.
            arms = (*forms, *(replace(arm, source=None) for arm in exported))
            report = run_benchmark(
                arms,
                settings,
                baselines=dense_names(arms),
                skipped=(*made.skipped, *skipped, *lacking),
                skip_failing=True,
                progress=TerminalProgress(),
            )
        write_report(report, self.output / f"{model}-{shape}", overwrite=True)
        yield from lines_of(report)

    def map(self, model: str) -> Iterator[Line]:
        """The break-even map of the model's sizes, with its plot."""
        plan = MapPlan(
            model=model,
            parts=model_parts(model)[1],
            tokens=_MAP_TOKENS,
            patterns=patterns_of(("block:64x1", "block:128x1", "2:4"), (0.5, 0.75, 0.9)),
            precisions=(Precision.FP16,),
            threads=None,
            effort=Effort(seconds=0.1, rounds=3),
            device="cuda",
        )
        found = measure_map(plan, progress=TerminalProgress())
        write_map(found, self.output / f"map-{model}", overwrite=True)
        for reason in dict.fromkeys(found.reasons.items()):
            yield {"arm": reason[0], "not_run": reason[1]}
        yield {"map": f"map-{model}", "cells": len(found.cells)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A model's checkpoints by name, its dense forms and its sparse artefacts; what has none."""

    checkpoints: Mapping[str, Checkpoint]
    dense: DenseModel
    exported: tuple[Artefact, ...]
    skipped: tuple[Skipped, ...]


def made_of(scratch: Path, model: str) -> Made:
    """Drawn, pruned and exported once, however many jobs need it."""
    checkpoints = {
        name: drawn(scratch / model, model, name, pattern)
        for name, pattern in (("dense", None), *PATTERNS.items())
    }
    sparse = {name: one for name, one in checkpoints.items() if name != "dense"}
    faults = {name: form.fault() for name, form in FORMS.items()}
    exported = tuple(
        exported_as(form, checkpoint, scratch / model / f"{name}-{form}")
        for name, checkpoint in sparse.items()
        for form, fault in faults.items()
        if fault is None
    )
    skipped = tuple(
        Skipped(name=f"{name}-{form}", reason=fault)
        for name in sparse
        for form, fault in faults.items()
        if fault is not None
    )
    dense = DenseModel.of(checkpoints["dense"], scratch / model / "forms")
    return Made(checkpoints=checkpoints, dense=dense, exported=exported, skipped=skipped)


def drawn(scratch: Path, model: str, name: str, pattern: Pattern | None) -> Checkpoint:
    """The checkpoint that an earlier job left, or a new one, whose description is written last."""
    there = scratch / f"{name}-checkpoint"
    if (there / SPD_FILE).is_file():
        return open_checkpoint(there)
    return checkpoint_of(scratch, model, name, pattern, max_tokens=LONGEST)


def fault_of_onnxruntime() -> str | None:
    """Why no ONNX artefact runs on this GPU, as nothing need be exported then; None if one does."""
    try:
        onnxruntime_for("cuda")
    except SpdError as err:
        return str(err)
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseForm:
    """What a sparse checkpoint is exported as for a GPU, and why that would not run on this one."""

    export: Callable[[Checkpoint, Path], Artefact]
    fault: Callable[[], str | None] = lambda: None


FORMS: Mapping[str, SparseForm] = {
    "torch": SparseForm(export=torch_artefact_from_checkpoint),
    "onnx": SparseForm(
        export=partial(artefact_from_checkpoint, request=ExportRequest(precision=Precision.FP16)),
        fault=fault_of_onnxruntime,
    ),
}


def exported_as(form: str, checkpoint: Checkpoint, folder: Path) -> Artefact:
    """The checkpoint in a form, as an earlier job left it, or made."""
    if is_artefact(folder):
        return open_artefact(folder)
    return FORMS[form].export(checkpoint, folder)


def engines_for(
    checkpoints: Mapping[str, Checkpoint], folder: Path, shape: Shape, *, dense: Sequence[str]
) -> tuple[tuple[Artefact, ...], tuple[Skipped, ...]]:
    """An engine of each checkpoint, and why of some there is none; ``dense`` names dense ones.

    Engines of 2:4 have no dense baseline of their own: the dense engine of the same row is one.
    """
    wanted = {
        name: checkpoint
        for name, checkpoint in checkpoints.items()
        if name != "dense" or "tensorrt-fp16" in dense
    }
    skipped = [Skipped(name=f"dense {name}", reason=_NO_DATA) for name in dense if "int8" in name]
    if (fault := engine_fault()) is not None:
        return (), (*skipped, *(Skipped(name=f"{name}-trt", reason=fault) for name in wanted))
    built = []
    for name, checkpoint in wanted.items():
        try:
            built.append(engine_of(checkpoint, folder / f"{name}-trt", shape))
        except SpdError as err:
            skipped.append(Skipped(name=f"{name}-trt", reason=str(err)))
    return tuple(built), tuple(skipped)


_NO_DATA = "int8 is calibrated on a task's data, and weights that were drawn have no task"


def engine_of(checkpoint: Checkpoint, folder: Path, shape: Shape) -> Artefact:
    """The checkpoint's engine for a shape, and for its proof's rows, one by one."""
    buckets = tuple(sorted({shape, Shape(batch=1, seq=checkpoint.max_tokens)}))
    artefact = artefact_from_checkpoint(
        checkpoint,
        folder,
        ExportRequest(precision=Precision.FP16, export_format=engine_format(buckets)),
    )
    build_engine(artefact, BuildRequest(builds=1, compare=False))
    return artefact


def lines_of(report: Report) -> Iterator[Line]:
    """A line for each arm at each shape, by both clocks, and one for each that was skipped."""
    judgement = judge(report)
    device = {(row.arm, row.shape): row for row in judgement.device}
    for row in judgement.rows:
        by_gpu = device.get((row.arm, row.shape))
        line: dict[str, Any] = {
            "arm": row.arm,
            "shape": str(row.shape),
            "host_p50_s": row.p50.value,
        }
        if row.speed_up is not None:
            line |= {"against": row.against, "host": str(row.speed_up)}
        yield {**line, **(by_clock(by_gpu) if by_gpu else {})}
    for one in report.skipped:
        yield {"arm": one.name, "not_run": one.reason}


def by_clock(row: LatencyRow) -> Line:
    """The figures of an arm by the GPU's clock."""
    assert row.device is not None  # noqa: S101 - a row by the GPU's clock
    line: dict[str, Any] = {
        "run_by": row.device.mode,
        "gpu_s": row.p50.value,
        "cold_s": row.device.cold_s,
    }
    if (limit := row.device.limit) is not None:
        line |= {"limit_s": limit.seconds, "bound": limit.bound}
    return line if row.speed_up is None else {**line, "gpu": str(row.speed_up)}


def line_text(line: Line) -> str:
    """A line for who looks on."""
    about = " ".join(str(line[name]) for name in ("job", "arm") if name in line)
    if "not_run" in line:
        return f"{about}: not run: {line['not_run']}"
    if "gpu_s" not in line:
        return about
    return f"{about}: {1e3 * line['gpu_s']:.3f} ms, {line.get('gpu', 'dense')}"


if __name__ == "__main__":
    main()
