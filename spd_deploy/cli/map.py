"""``spd map``: what sparsity would gain on this machine, before anything is trained."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.cli.map_structured import (
    DEFAULT_SHAPES,
    LATENCY_PRECISIONS,
    latency_plan,
    show_latency_table,
    write_structured_map,
)
from spd_deploy.cli.options.common import (
    DEVICE,
    LARGEST_SIZE,
    Shapes,
    Sizes,
    json_option,
    timing_options,
)
from spd_deploy.cli.output.console import TerminalProgress, show_json, show_table
from spd_deploy.domain.extras import needs_extras
from spd_deploy.domain.runtime_choice import CPU_RUNTIMES
from spd_deploy.hub.fetch import fetch_model

if TYPE_CHECKING:
    from spd_deploy.benchmark.breakeven.map_plan import MapPlan
    from spd_deploy.benchmark.breakeven.map_records import BreakEvenMap

_TOKENS = {"cpu": (32, 128, 1024), "cuda": (128, 1024, 4096, 16384)}
_PRECISIONS = {"cpu": ("fp32", "int8"), "cuda": ("fp16",)}
_PATTERNS = {
    "cpu": ("block:64x1", "block:128x1", "structured"),
    "cuda": ("structured", "block:128x1", "2:4"),
}


class MatrixSize(click.ParamType[tuple[int, int]]):
    """Outputs x inputs, each from 1 to :data:`LARGEST_SIZE`."""

    name = "NxK"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Outputs and inputs of ``NxK``; a tuple, as from a default, is returned as it is."""
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", str(value), re.ASCII)
        if found is None or max(map(int, found.groups())) > LARGEST_SIZE:
            self.fail(
                f"{value!r} is not outputs x inputs such as 768x3072, up to {LARGEST_SIZE}",
                param,
                ctx,
            )
        return int(found[1]), int(found[2])


class Shares(click.ParamType[tuple[float, ...]]):
    """Numbers with commas between them; the pattern says which are sparsities."""

    name = "s,s,.."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """The numbers in the order given; a tuple, as from a default, is returned as it is."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of sparsities such as 0.5,0.9", param, ctx)


@click.command(
    "map",
    epilog="""\b
Examples:
  spd map --output maps/here
  spd map --model minilm --tokens 32,256 --pattern block:32x1 --sparsity 0.8,0.9 --output maps/mini
  spd map --model runs/mrpc/teacher --output maps/mine
  spd map --device cuda --tokens 128,4096 --pattern block:128x1 --pattern 2:4 --output maps/gpu
  spd map --shape 768x3072 --shape 3072x768 --pattern block:64x1 --threads 1 --output maps/ffn
  spd map --runtime openvino --precision int8 --output maps/openvino
  spd map --structured --model minilm --at 1x32,8x128 --output maps/minilm.json""",
)
@click.option(
    "--structured",
    is_flag=True,
    help="Time whole networks with heads and neurons removed instead, and write the latency table "
    "of this machine. spd train --speedup chooses by it. Off by default.",
)
@click.option(
    "--at",
    type=Shapes(),
    help="Shapes of the batches of --structured: rows x tokens.  [default: 8x128]",
)
@click.option(
    "--model",
    help="Model whose matrix sizes are measured: minilm, base, large, the folder of a model, a "
    "checkpoint or an artefact, or an address such as hf://OWNER/NAME.  [default: base]",
)
@click.option(
    "--shape",
    "shapes",
    type=MatrixSize(),
    multiple=True,
    help="Size of one matrix to measure, outputs x inputs, such as 768x3072. Name the matrices "
    "that you ask about. May be given several times.  [default: the sizes of --model]",
)
@click.option(
    "--tokens",
    type=Sizes(),
    help="Tokens of all rows of a batch together, one or more numbers with commas between them. A "
    "batch of 8 rows with 128 tokens has 1024.  [default: 32,128,1024; on a GPU "
    "128,1024,4096,16384]",
)
@click.option(
    "--pattern",
    "patterns",
    multiple=True,
    help="Sparsity pattern to measure, as spd train takes it. May be given several times.  "
    "[default: block:64x1, block:128x1 and structured; on a GPU structured, block:128x1 and 2:4]",
)
@click.option(
    "--sparsity",
    "sparsities",
    type=Shares(),
    default="0.5,0.75,0.9",
    show_default=True,
    help="Shares of zeros to measure each pattern at, with commas between them. Patterns such as "
    "2:4 have one share of their own.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(LATENCY_PRECISIONS),
    multiple=True,
    help="Precision of the products, dense and sparse. May be given several times. With "
    "--structured one; bf16 is OpenVINO's, and only with --structured.  [default: both fp32 and "
    "int8; fp32 with --structured; always fp16 on a GPU]",
)
@click.option(
    "--runtime",
    "runtimes",
    type=click.Choice(CPU_RUNTIMES),
    multiple=True,
    help="Runtime of the products, dense and sparse. May be given several times.  [default: both, "
    "where OpenVINO is installed; onnxruntime with --structured; always PyTorch on a GPU]",
)
@click.option(
    "--device",
    type=DEVICE,
    default="cpu",
    show_default=True,
    help="Processor to measure on. cuda needs an NVIDIA GPU.",
)
@timing_options(
    rounds=3,
    seconds=0.3,
    turns="How often the products take turns. More rounds average out what else the machine does.",
    time="Time for one product at one number of tokens, all rounds together, in seconds. More time "
    "gives steadier figures.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to write map.json and map.png to; with --structured the file to write.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier map in --output.")
@json_option("the map")
@needs_extras("map", "bench")
def map_(as_json: bool, **options: Any) -> None:
    """Measure what each pattern gains on this machine, before anything is trained.

    Matrix products of a model's sizes are timed, dense and sparse, with random weights: the time
    does not depend on what a model has learned. They run in ONNX Runtime and, where it is
    installed, in OpenVINO. With --device cuda each way to run a pattern on this GPU has rows of its
    own, in fp16.

    The table shows the time of the products of one layer, and how many times as fast that is as
    dense fp32. Below it stand the sparsity from which each pattern pays, and what to start with.
    The folder gets map.json and map.png.

    A whole model gains less than its products, since it also does work that no sparsity saves.
    spd bench measures whole models.

    With --structured whole networks are timed: the file has the time of a layer's attention by its
    heads, of its feed-forward part by its neurons, and what no pruning saves. spd train --speedup
    chooses by it what each layer keeps.
    """
    if options["structured"]:
        _refuse_with_structured(options)
        _map_structured(options, as_json=as_json)
        return
    _refuse_without_structured(options)
    from spd_deploy.benchmark.breakeven.map_records import text_from_map
    from spd_deploy.benchmark.breakeven.publish_map import refuse_taken, write_map
    from spd_deploy.benchmark.breakeven.run_map import measure_map

    output, overwrite = options["output"], options["overwrite"]
    refuse_taken(output, overwrite=overwrite)
    found = measure_map(_plan(options), progress=TerminalProgress())
    write_map(found, output, overwrite=overwrite)
    if as_json:
        click.echo(text_from_map(found), nl=False)
    else:
        _show(found, output)


def _model(options: Mapping[str, Any]) -> str:
    """The name of a size, or the folder of a model; one at an address is copied first."""
    return str(fetch_model(options["model"] or "base").folder)


def _map_structured(options: Mapping[str, Any], *, as_json: bool) -> None:
    """Measure and write the latency table of whole networks, and show it."""
    from spd_deploy.timing.host_clock import TimingSettings

    plan = latency_plan(
        options["at"] or DEFAULT_SHAPES,
        runtime=next(iter(options["runtimes"]), "onnxruntime"),
        precision=next(iter(options["precisions"]), "fp32"),
        threads=options["threads"],
        timing=TimingSettings(seconds=options["seconds"], rounds=options["rounds"], warmup_runs=1),
    )
    table = write_structured_map(
        _model(options),
        plan,
        options["output"],
        overwrite=options["overwrite"],
        progress=TerminalProgress(),
    )
    show_json(table.to_json()) if as_json else show_latency_table(table, options["output"])


def _plan(options: Mapping[str, Any]) -> "MapPlan":
    """The products to measure: on a GPU in fp16 in PyTorch, on a CPU in each runtime.

    Raises:
        SpdError: no such model, or a pattern that does not fit its matrices.
    """
    from exporters.precision import Precision
    from spd_deploy.benchmark.breakeven.map_plan import (
        MapPlan,
        model_parts,
        patterns_of,
        runtimes_here,
    )
    from spd_deploy.benchmark.breakeven.map_records import MapMatrix
    from spd_deploy.domain.cores import default_threads
    from spd_deploy.timing.host_clock import TimingSettings

    device, on_gpu = options["device"], options["device"] == "cuda"
    own = tuple(MapMatrix(shape=shape, count=1) for shape in dict.fromkeys(options["shapes"]))
    name, parts = (None, own) if own else model_parts(_model(options))
    precisions = dict.fromkeys(options["precisions"] or _PRECISIONS[device])
    return MapPlan(
        model=name,
        parts=parts,
        tokens=tuple(sorted(set(options["tokens"] or _TOKENS[device]))),
        patterns=patterns_of(options["patterns"] or _PATTERNS[device], options["sparsities"]),
        precisions=tuple(map(Precision, precisions)),
        threads=None if on_gpu else options["threads"] or default_threads(),
        timing=TimingSettings(seconds=options["seconds"], rounds=options["rounds"]),
        device=device,
        runtimes=() if on_gpu else tuple(dict.fromkeys(options["runtimes"])) or runtimes_here(),
    )


def _refuse_without_structured(options: Mapping[str, Any]) -> None:
    """Refuse options of the latency table, and those that a GPU's map does not take.

    Raises:
        UsageError: with the option and what it goes with.
    """
    if options["at"] is not None or "bf16" in options["precisions"]:
        raise click.UsageError("--at and --precision bf16 go with --structured")
    if options["model"] is not None and options["shapes"]:
        raise click.UsageError("--model and --shape both name sizes: leave one of them out")
    if options["device"] == "cpu":
        return
    if options["threads"] is not None:
        raise click.UsageError("--threads goes with --device cpu")
    if options["precisions"]:
        raise click.UsageError("--precision goes with --device cpu; a GPU's map is in fp16")
    if options["runtimes"]:
        raise click.UsageError("--runtime goes with --device cpu; PyTorch runs a GPU's products")


def _refuse_with_structured(options: Mapping[str, Any]) -> None:
    """Refuse options of the other map, and several runtimes or precisions.

    Raises:
        UsageError: with the option that does not go with ``--structured``.
    """
    names = {"shapes": "--shape", "tokens": "--tokens", "patterns": "--pattern"}
    if wrong := [option for name, option in names.items() if options[name]]:
        raise click.UsageError(f"{wrong[0]} does not go with --structured")
    if options["device"] == "cuda":
        raise click.UsageError("--structured times networks on the CPU: leave --device out")
    if len(set(options["runtimes"])) > 1 or len(set(options["precisions"])) > 1:
        raise click.UsageError("--structured takes one --runtime and one --precision")


def _show(found: "BreakEvenMap", output: Path) -> None:
    """Print the table, where each pattern pays, the caveats, and what to start with."""
    from spd_deploy.benchmark.breakeven.map_summary import (
        advice_lines,
        breakeven_lines,
        machine_text,
        map_caveats,
        map_table,
    )

    click.echo(f"{machine_text(found)}\n")
    table = map_table(found)
    show_table(table.title, table.columns, table.rows)
    click.echo()
    for line in breakeven_lines(found):
        click.echo(line)
    for line in map_caveats(found):
        click.echo(f"caveat: {line}")
    click.echo(f"saved: {output}\n")
    for line in advice_lines(found):
        click.echo(line)
