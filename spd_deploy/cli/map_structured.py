"""``spd map --structured``: the latency table of this machine, measured and shown."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import click

from spd_deploy.cli.inputs.latency_model import latency_weights
from spd_deploy.cli.output.console import show_table
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.spelling import listed

if TYPE_CHECKING:
    from exporters.autotune.measure_latency import LatencyPlan
    from exporters.classifier_weights import ClassifierWeights
    from spd_deploy.domain.latency_table import LatencyTable
    from spd_deploy.domain.part_times import ShapeTimes
    from spd_deploy.timing.host_clock import TimingSettings

DEFAULT_SHAPES = (Shape(batch=8, seq=128),)
# A table that predicts its own checks worse at the median is not worth training to.
_LARGEST_TRUSTED_ERROR = 0.1
LATENCY_PRECISIONS = ("fp32", "int8", "bf16")


def latency_plan(
    shapes: tuple[Shape, ...],
    *,
    runtime: CpuRuntime,
    precision: str,
    threads: int | None,
    timing: "TimingSettings | None" = None,
) -> "LatencyPlan":
    """The plan of a latency table here; ``precision`` is one of :data:`LATENCY_PRECISIONS`.

    Raises:
        BadSetting: bf16 in another runtime than OpenVINO.
    """
    from exporters.autotune.measure_latency import LATENCY_TIMING, LatencyPlan
    from exporters.precision import Precision
    from spd_deploy.domain.cores import default_threads
    from spd_deploy.machine.facts import this_machine

    rounded = precision == "bf16"
    return LatencyPlan(
        shapes=shapes,
        threads=threads or default_threads(),
        machine=this_machine().cpu,
        runtime=runtime,
        stored=Precision.FP32 if rounded else Precision(precision),
        computed=precision if rounded else None,
        timing=timing or LATENCY_TIMING,
    )


def measure_table(
    weights: "ClassifierWeights", plan: "LatencyPlan", progress: Progress
) -> "LatencyTable":
    """The latency table of this machine, with the reasons to doubt it.

    Raises:
        SpdError: a shape that is too long, or a runtime that does not run here.
    """
    from exporters.autotune.measure_latency import measure_latency_table
    from spd_deploy.benchmark.machine_warnings import load_caveats
    from spd_deploy.machine.facts import this_machine
    from spd_deploy.timing.machine_load import LoadObserver, load_average

    observer = LoadObserver(load_average())
    table = measure_latency_table(weights, plan, progress=progress)
    doubts = list(load_caveats(this_machine(), observer.conditions(), plan.threads))
    if table.unsettled:
        count = len(table.networks) + len(table.checks)
        doubts.append(f"{table.unsettled} of {count} networks never took the same time twice")
    return replace(table, doubts=tuple(doubts))


def write_structured_map(
    model: str, plan: "LatencyPlan", output: Path, *, overwrite: bool, progress: Progress
) -> "LatencyTable":
    """Measure the table of a model's sizes, and write it to ``output``.

    Raises:
        NotWritten: ``output`` exists, or cannot be written.
        SpdError: no such model, or it cannot be measured here.
    """
    from spd_deploy.domain.files import refuse_existing_file
    from spd_deploy.domain.latency_table import write_latency_table
    from spd_deploy.domain.named_encoders import refuse_unknown_model

    refuse_existing_file(output, overwrite=overwrite)
    refuse_unknown_model(model)
    table = measure_table(latency_weights(model), plan, progress)
    write_latency_table(output, table)
    return table


def show_latency_table(table: "LatencyTable", output: Path) -> None:
    """Print the times of the parts, what they mean, and what to do next."""
    click.echo(f"{table.where}; {table.sizes}\n")
    for times in table.times:
        for title, columns, rows in _tables(table, times):
            show_table(title, columns, rows)
            click.echo()
    for line in _meaning(table):
        click.echo(line)
    for doubt in table.doubts:
        click.echo(f"caveat: {doubt}")
    click.echo(f"saved: {output}\n")
    errors = table.errors()
    if errors and median(errors) > _LARGEST_TRUSTED_ERROR:
        click.echo(
            "Do not train with this table: its predictions are off by more than "
            f"{_LARGEST_TRUSTED_ERROR:.0%}, so a student may miss its speed-up. Measure again when "
            "the machine is quiet."
        )
        return
    click.echo(f"next: spd train --speedup 3 --latency-table {output} ...")


def _tables(
    table: "LatencyTable", times: "ShapeTimes"
) -> Iterator[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]:
    """The two parts of a layer: a row for each number that is kept."""
    from spd_deploy.benchmark.formatting import milliseconds, percent

    dense_s = times.seconds(table.dense)
    parts = (
        ("Attention", "heads", times.inner.attention, times.last.attention),
        ("Feed-forward", "neurons", times.inner.feed_forward, times.last.feed_forward),
    )
    for name, unit, inner, last in parts:
        rows: list[tuple[str, ...]] = [
            (
                str(kept),
                milliseconds(inner.at(kept)),
                percent(inner.at(kept) / dense_s, 1),
                percent(inner.at(kept) / (inner.seconds[-1] or 1), 0),
                milliseconds(last.at(kept)),
            )
            for kept in reversed(inner.kept)
        ]
        columns: tuple[str, ...] = (
            unit,
            "ms",
            "of the dense model",
            f"of all {unit}",
            "last layer, ms",
        )
        yield f"{name} of one layer at {times.shape}", columns, rows


def _meaning(table: "LatencyTable") -> Iterator[str]:
    """The results of a table: the base, the fastest speed-up, and the numbers worth keeping."""
    from spd_deploy.benchmark.formatting import milliseconds, percent, ratio

    for times in table.times:
        dense_s, base_s = times.seconds(table.dense), times.base_s
        yield (
            f"At {times.shape} the dense model takes {milliseconds(dense_s)} ms. Without any head "
            f"and neuron {milliseconds(base_s)} ms are left ({percent(base_s / dense_s, 1)})."
        )
    fastest = ratio(table.fastest_speedup)
    yield f"No structured model of these sizes is more than {fastest}x as fast."
    for unit, steps, all_of in (
        ("heads", table.head_steps(), table.times[0].inner.attention.kept),
        ("neurons", table.neuron_steps(), table.times[0].inner.feed_forward.kept),
    ):
        free = [n for n in all_of if n not in steps]
        if free:
            yield (
                f"{listed(free, 'or')} {unit} cost as much as the next larger number: "
                f"keep {listed(steps, 'or')}."
            )
    if errors := table.errors():
        yield (
            f"{len(table.checks)} models with unlike layers were timed as a check: predicted "
            f"within {percent(median(errors), 1)} at the median, {percent(max(errors), 1)} at most."
        )
