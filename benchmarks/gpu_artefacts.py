"""Artefacts on a GPU, in a limited time: dense and sparse BERT shapes, and break-even maps.

:mod:`benchmarks.gpu` measures PyTorch's forms in minutes. This script exports every model first, so
that it also has ONNX Runtime's CUDA provider and TensorRT engines.

BERT-base and BERT-large sizes with random weights, in fp16, batch 1, 8, 32, 128 x 128 and 384
tokens: blocks at 90 % and 75 % and 2:4, in every form that this version exports for GPUs, against
the fastest dense form of the machine. Where TensorRT works, engines of all of them, the dense model
among them, are built for each shape, one draw each. It needs neither network nor data.

    python -m benchmarks.gpu_artefacts --minutes 25 --output DIR
    python -m benchmarks.gpu_artefacts --minutes 10 --models base --dense torch-eager --output DIR

The most important rows come first. Each is written when it is measured, as a folder with its report
and a line in ``rows.jsonl``, so an interrupted run keeps them. A row that could not be run, or was
not reached in time, has a line with the reason. No row is estimated. The script does not change the
card's settings.
"""

import argparse
import json
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.gpu_grid import Grid
from benchmarks.gpu_lines import Line, line_text
from spd_deploy.benchmark.dense.dense_arms import NAMES, parse_dense
from spd_deploy.cli.output.console import TerminalProgress
from spd_deploy.domain.errors import SpdError, reason_of
from spd_deploy.sessions.cuda.pytorch import refuse_without_cuda


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
        raise SystemExit(f"benchmarks.gpu_artefacts: {err}") from err
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


def in_child(grid: Grid, models: Sequence[str], name: str) -> list[Line]:
    """The lines of a job, done in a process of its own.

    What traces kernels stays attached to the driver until its process ends, and slows launches
    down; a fault of the GPU lasts as long.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(lines_in_child, grid, models, name).result()


def lines_in_child(grid: Grid, models: Sequence[str], name: str) -> list[Line]:
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


if __name__ == "__main__":
    main()
