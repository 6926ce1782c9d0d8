"""Predicted against measured latency of random structured models: is a latency table right?

    python -m benchmarks.latency_prediction --model minilm --at 8x128 --precision int8

Measures a table, draws models whose layers keep random numbers of heads and neurons, some layers
none at all, and times them as the table's networks were. Prints each model's predicted and measured
time, and the median and the largest relative error, as Markdown.

On a machine with other work no wall-clock time is worth much. With ``--processor-time``, which
needs ``--threads 1``, the seconds are those that the process itself computed.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter_ns, process_time_ns

from exporters.autotune.measure_latency import (
    LatencyPlan,
    measure_latency_table,
    time_structures,
)
from exporters.precision import Precision
from spd_deploy.cli.inputs.latency_model import latency_weights
from spd_deploy.cli.output.console import TerminalProgress
from spd_deploy.domain.latency_table import (
    EncoderSizes,
    LatencyTable,
    read_latency_table,
    write_latency_table,
)
from spd_deploy.domain.part_times import TimedStructures, undisturbed
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.structures import Structures
from spd_deploy.machine.facts import this_machine
from spd_deploy.timing.machine_load import load_average

_EMPTY = 0.2  # the share of sublayers that keep nothing


def drawn_structures(sizes: EncoderSizes, random: Random) -> Structures:
    """A model whose sublayers keep any number of heads and neurons, or nothing."""
    return Structures(
        heads=tuple(_drawn(sizes.heads, random) for _ in range(sizes.layers)),
        neurons=tuple(_drawn(sizes.intermediate, random) for _ in range(sizes.layers)),
    )


def _drawn(most: int, random: Random) -> int:
    """Nothing, or any number from 1 to ``most``."""
    return 0 if random.random() < _EMPTY else random.randint(1, most)


def rows_of(table: LatencyTable, timed: Sequence[TimedStructures]) -> list[tuple[str, ...]]:
    """A row for each model and shape: its structures, predicted and measured time, the error."""
    return [
        (
            str(network.structures),
            str(times.shape),
            f"{1e3 * times.seconds(network.structures):.2f}",
            f"{1e3 * undisturbed(rounds):.2f}",
            f"{times.seconds(network.structures) / undisturbed(rounds) - 1:+.1%}",
        )
        for network in timed
        for times, rounds in zip(table.times, network.seconds, strict=True)
    ]


def main() -> None:
    """Measure, predict, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="minilm", help="minilm, base, large, or a folder")
    parser.add_argument("--at", default="8x128", help="rows x tokens, with commas between them")
    parser.add_argument("--runtime", default="onnxruntime", choices=["onnxruntime", "openvino"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "int8", "bf16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", type=int, default=10, help="how many are drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, help="read this table, or write it where it is not")
    parser.add_argument("--processor-time", action="store_true")
    args = parser.parse_args()
    if args.processor_time and args.threads != 1:
        parser.error("--processor-time goes with --threads 1")
    clock = process_time_ns if args.processor_time else perf_counter_ns
    sizes = [tuple(map(int, text.split("x"))) for text in args.at.split(",")]
    plan = LatencyPlan(
        shapes=tuple(Shape(batch=batch, seq=seq) for batch, seq in sizes),
        threads=args.threads,
        machine=this_machine().cpu,
        runtime=args.runtime,
        stored=Precision.INT8 if args.precision == "int8" else Precision.FP32,
        computed="bf16" if args.precision == "bf16" else None,
    )
    progress, before = TerminalProgress(), load_average()
    weights = latency_weights(args.model)
    if args.table is not None and args.table.exists():
        table = read_latency_table(args.table)
    else:
        table = measure_latency_table(weights, plan, progress=progress, clock=clock)
        if args.table is not None:
            write_latency_table(args.table, table)
    random = Random(args.seed)
    drawn = [drawn_structures(table.sizes, random) for _ in range(args.models)]
    timed = time_structures(weights, drawn, plan, progress=progress, clock=clock)
    errors = [
        abs(times.seconds(network.structures) / undisturbed(rounds) - 1)
        for network in timed
        for times, rounds in zip(table.times, network.seconds, strict=True)
    ]
    print(f"{table.where}; {table.sizes}; load {before} before, {load_average()} after\n")
    print("| kept | at | predicted ms | measured ms | error |\n|---|---|---|---|---|")
    for row in rows_of(table, timed):
        print(f"| {' | '.join(row)} |")
    print(f"\nerror: median {median(errors):.1%}, largest {max(errors):.1%}")


if __name__ == "__main__":
    main()
