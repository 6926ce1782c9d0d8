"""The grid of ``gpu_artefacts``: every shape of every model, and its break-even maps."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.gpu_lines import Line, lines_of
from benchmarks.gpu_models import LONGEST, engines_for, made_of
from exporters.precision import Precision
from spd_deploy.benchmark.artefact_arms import arms_of
from spd_deploy.benchmark.breakeven.map_plan import MapPlan, model_parts, patterns_of
from spd_deploy.benchmark.breakeven.publish_map import write_map
from spd_deploy.benchmark.breakeven.run_map import measure_map
from spd_deploy.benchmark.compare import dense_names, engines_of
from spd_deploy.benchmark.dense.dense_arms import ENGINES, DenseName, dense_arms
from spd_deploy.benchmark.publish import write_report
from spd_deploy.benchmark.records import BenchmarkSettings, Shape
from spd_deploy.benchmark.run import run_benchmark
from spd_deploy.cli.output.console import TerminalProgress
from spd_deploy.timing.host_clock import TimingSettings

BATCHES, SEQS = (1, 8, 32, 128), (128, LONGEST)
# What a row is worth: large batches of short texts first, for which most is promised.
_FIRST = (Shape(batch=32, seq=128), Shape(batch=1, seq=128), Shape(batch=128, seq=128))
_MAP_TOKENS = (128, 1024, 4096, 16384)


def shapes_by_worth() -> tuple[Shape, ...]:
    """The grid's shapes, the ones that say most first, then the smaller ones first."""
    rest = sorted(set(Shape.grid(BATCHES, SEQS)) - set(_FIRST), key=lambda s: (s.seq, s.tokens))
    return (*_FIRST, *rest)


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """What all jobs share: where files lie, how to measure, what to compare with."""

    scratch: Path
    output: Path
    dense: tuple[DenseName, ...]
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
                dense=tuple(name for name in ENGINES if name in self.dense),
            )
            exported = arms_of((*made.exported, *built))
            sources = [arm.source for arm in exported if arm.source is not None]
            dense_models, lacking = dense_arms(made.dense, names, engines=engines_of(sources))
            # Dense arms are not weighed on the host, so neither are the others.
            arms = (*dense_models, *(replace(arm, source=None) for arm in exported))
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
            patterns=patterns_of(
                ("structured", "block:128x1", "block:64x1", "2:4"), (0.5, 0.75, 0.9)
            ),
            precisions=(Precision.FP16,),
            threads=None,
            timing=TimingSettings(seconds=0.1, rounds=3),
            device="cuda",
        )
        found = measure_map(plan, progress=TerminalProgress())
        write_map(found, self.output / f"map-{model}", overwrite=True)
        for reason in dict.fromkeys(found.reasons.items()):
            yield {"arm": reason[0], "not_run": reason[1]}
        yield {"map": f"map-{model}", "cells": len(found.cells)}
