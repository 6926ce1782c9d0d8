"""``spd train --speedup``: how fast the student has to be, where, and by which times."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.cli.inputs.latency_model import latency_weights
from spd_deploy.cli.map_structured import (
    DEFAULT_SHAPES,
    LATENCY_PRECISIONS,
    latency_plan,
    measure_table,
)
from spd_deploy.cli.options.common import Command, Shapes, Sizes
from spd_deploy.domain.cores import default_threads, usable_cores
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtime_choice import CPU_RUNTIMES
from spd_deploy.timing.machine_load import LoadObserver, is_busy

if TYPE_CHECKING:
    from exporters.autotune.measure_latency import LatencyPlan
    from exporters.classifier_weights import ClassifierWeights
    from spd_deploy.domain.latency_table import LatencyTable
    from spd_deploy.domain.structures import Structures

# --max-drop without --speedup tries these.
LADDER = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
# These need --speedup or --max-drop.
_OF_SPEED = (
    "shapes",
    "runtime_name",
    "export_precision",
    "latency_table",
    "any_machine",
    "compare_layers",
)


class Factors(click.ParamType[tuple[float, ...]]):
    """Numbers above 1 with commas between them, each larger than the one before."""

    name = "f,f,.."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """The numbers, refused unless they rise from above 1; the API gives a list."""
        parts = value if isinstance(value, tuple | list) else str(value).split(",")
        try:
            found = tuple(float(part) for part in parts)
        except (TypeError, ValueError):
            self.fail(f"{value!r} is not a list of speed-ups such as 2,3,5", param, ctx)
        rising = all(low < high for low, high in zip((1.0, *found), found, strict=False))
        if not rising:
            self.fail(f"{value!r} are not speed-ups above 1 that rise, such as 2,3,5", param, ctx)
        return found


def speed_options(command: Command) -> Command:
    """The command with ``--speedup`` of some models, ``--max-drop``, and where it counts."""
    speedup = click.option(
        "--speedup",
        "speedups",
        type=Factors(),
        metavar="FACTOR,..",
        help="How many times as fast as the dense model the student has to be on this machine. "
        "Heads and neurons are removed where they cost least accuracy for the time they take. "
        "Several rising factors, such as 2,3,5, train a family: a student for each, each from "
        "the one before. Takes the place of --sparsity.  [default: none; the sparsity decides]",
    )
    max_drop = click.option(
        "--max-drop",
        type=click.FloatRange(min=0),
        metavar="POINTS",
        help="Points of 100 that the student may lose on the validation rows. A family is "
        "trained until a student loses more; the fastest that loses less is the result. "
        "--speedup says which speed-ups are tried.  "
        f"[default: none; with it --speedup is {','.join(f'{f:g}' for f in LADDER)}]",
    )
    layers = click.option(
        "--compare-layers",
        type=Sizes(),
        metavar="N,..",
        help="Numbers of layers. For each a dense student with so few layers is distilled in the "
        "same way and shown beside the others: what one would do without sparsity. Each takes as "
        "long as a student.  [default: none]",
    )
    return speedup(max_drop(layers(place_options(command))))


def one_speed_options(command: Command) -> Command:
    """The command with ``--speedup`` of one model, and where it counts."""
    speedup = click.option(
        "--speedup",
        type=click.FloatRange(min=1, min_open=True),
        metavar="FACTOR",
        help="How many times as fast as the dense model the result has to be on this machine. "
        "Heads and neurons are removed where they cost least for the time they take. Takes the "
        "place of --pattern and --sparsity.  [default: none; the sparsity decides]",
    )
    return speedup(place_options(command))


def place_options(command: Command) -> Command:
    """The command with the options that say where a speed-up counts."""
    options = [
        click.option(
            "--at",
            "shapes",
            type=Shapes(),
            metavar="ROWSxTOKENS,..",
            help="Shapes of the batches at which --speedup counts: rows x tokens. Of several the "
            "geometric mean counts. Name those of your requests.  [default: 8x128]",
        ),
        click.option(
            "--runtime",
            "runtime_name",
            type=click.Choice(CPU_RUNTIMES),
            help="Runtime in which --speedup counts: the one that will serve the model.  "
            "[default: onnxruntime]",
        ),
        click.option(
            "--export-precision",
            type=click.Choice(LATENCY_PRECISIONS),
            help="Precision in which --speedup counts: that in which the model will be served. "
            "The dense model runs in it too. bf16 is OpenVINO's.  [default: fp32]",
        ),
        click.option(
            "--latency-table",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Times of this machine that spd map --structured wrote. Saves measuring them "
            "again.  [default: measure them first, in a minute or two]",
        ),
        click.option(
            "--any-machine",
            is_flag=True,
            help="Take the times of another machine in --latency-table, such as the one that will "
            "serve. The result is then not measured here. Off by default.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def refuse_without_speed(options: Mapping[str, Any]) -> None:
    """Refuse options that say where a speed-up counts, if none is wanted.

    Raises:
        UsageError: naming the first of them.
    """
    if any(options.get(name) is not None for name in ("speedups", "max_drop", "speedup")):
        return
    names = {"shapes": "at", "runtime_name": "runtime"}
    for name in _OF_SPEED:
        if options.get(name):
            option = names.get(name, name).replace("_", "-")
            raise click.UsageError(
                f"--{option} says where a speed-up counts, and no --speedup is given; add "
                f"--speedup, or leave --{option} out"
            )


def speedups_of(options: Mapping[str, Any]) -> tuple[float, ...] | None:
    """The speed-ups to train for; None if the sparsity decides."""
    found: tuple[float, ...] | None = options["speedups"]
    return LADDER if found is None and options["max_drop"] is not None else found


def reachable_speedups(
    options: Mapping[str, Any], table: "LatencyTable | None", note: Callable[[str], None]
) -> tuple[float, ...] | None:
    """The speed-ups to train for, refused before the first is trained if one cannot be reached.

    Those that ``--max-drop`` tries by itself are left out instead.

    Raises:
        BadSetting: no structures reach one.
    """
    from spd_train.pruning.structured.plan import refuse_unreachable

    wanted = speedups_of(options)
    if wanted is None or table is None:
        return wanted
    if options["speedups"] is None:
        fastest = table.fastest_speedup
        found = tuple(factor for factor in wanted if factor < fastest) or wanted[:1]
        if left_out := wanted[len(found) :]:
            spelled = ", ".join(f"{factor:g}" for factor in left_out)
            note(f"not tried: {spelled}; a model without heads and neurons is {fastest:.1f}x")
        wanted = found
    for factor in wanted:
        refuse_unreachable(table, factor)
    return wanted


def speed_plan(options: Mapping[str, Any], table: "LatencyTable | None") -> "LatencyPlan":
    """The shapes and the runtime of speed-ups: as the options say, else as in the latency table.

    The training's own threads do not count: a model may be served with fewer or more.
    """
    return latency_plan(
        options["shapes"] or (DEFAULT_SHAPES if table is None else table.shapes),
        runtime=options["runtime_name"] or ("onnxruntime" if table is None else table.runtime),
        precision=options["export_precision"] or ("fp32" if table is None else table.precision),
        threads=None if table is None else table.threads,
    )


def _dense_weights(options: Mapping[str, Any]) -> "ClassifierWeights":
    """Drawn weights of the sizes of the model that is pruned."""
    return latency_weights(str(options.get("teacher") or options["model"]))


def latency_table_for(
    options: Mapping[str, Any],
    earlier_run: Mapping[str, Any],
    progress: Progress,
) -> "LatencyTable":
    """The latency table of the run that is resumed, of ``--latency-table``, or a new one.

    A resumed run has its table in ``earlier_run``, its ``run.json``.

    Raises:
        BadReport: the table in the file is of something else than the options say.
        BadModel: there is no model, or spd does not support it.
    """
    from spd_deploy.domain.latency_table import EncoderSizes, LatencyTable, read_latency_table

    if earlier_run.get("latency"):
        return LatencyTable.from_json(earlier_run["latency"])
    file = options["latency_table"]
    table = None if file is None else read_latency_table(file)
    plan = speed_plan(options, table)
    weights = _dense_weights(options)
    if table is None:
        table = measure_table(weights, plan, progress)
    else:
        table.refuse_misfit(
            machine=plan.machine,
            runtime=plan.runtime,
            precision=plan.precision,
            shapes=plan.shapes,
            cores=default_threads(),
            sizes=EncoderSizes.of(weights.encoder),
            any_machine=options["any_machine"],
        )
    progress.note(f"latency table: {table.where}, at {', '.join(map(str, table.shapes))}")
    return table


def structures_measurer(
    options: Mapping[str, Any], table: "LatencyTable", progress: Progress
) -> "Callable[[Structures], float | None] | None":
    """A function that measures the speed-up of structures; None if the table is of elsewhere.

    A speed-up that was measured while other processes kept the cores busy is reported and not used:
    the search would correct its budget by what the others did.
    """
    if options["any_machine"]:
        return None
    from exporters.autotune.measure_latency import structures_speedup

    plan = speed_plan(options, table)
    weights = _dense_weights(options)

    def measured(found: "Structures") -> float | None:
        observer = LoadObserver(None)
        speedup = structures_speedup(weights, found, plan, progress=progress)
        busy = observer.conditions().others_cores
        if not is_busy(busy):
            return speedup
        progress.note(
            f"measured {speedup:.2f} times as fast as dense, while other processes kept {busy:.1f} "
            f"of {usable_cores():g} cores busy: the times of the latency table are used instead"
        )
        return None

    return measured
