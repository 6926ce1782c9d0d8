"""``spd build``: builds the engine of a trt artefact on the machine that will serve it."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from spd_deploy.cli.options.common import json_option
from spd_deploy.cli.output.console import TerminalProgress, show_json
from spd_deploy.cli.output.engines import record_lines
from spd_deploy.domain.artefact import open_artefact
from spd_deploy.sessions.tensorrt.build_plan import HardwareCompatibility, Options, read_plan

if TYPE_CHECKING:
    from spd_deploy.sessions.tensorrt.build_plan import BuildPlan

_GIB = 1 << 30


@click.command(
    epilog="""\b
Examples:
  spd build artefacts/mrpc
  spd build artefacts/mrpc --builds 5 --workspace-gib 4
  spd build artefacts/mrpc --hardware-compatible same_compute_capability"""
)
@click.argument("artefact", type=click.Path(path_type=Path))
@click.option(
    "--builds",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="Number of engines to build of each kind, sparse and dense; the fastest is kept. Builds "
    "differ, since TensorRT chooses kernels by noisy timings. Lower it to build faster.",
)
@click.option(
    "--compare/--no-compare",
    default=True,
    show_default=True,
    help="Where sparse kernels may be used, also build engines without them, and keep the fastest "
    "of all. --no-compare halves the time of the build, and shows no gain of sparse kernels.",
)
@click.option(
    "--version-compatible",
    is_flag=True,
    help="Build an engine that later versions of TensorRT can load too. Off by default: it may be "
    "slower.",
)
@click.option(
    "--hardware-compatible",
    type=click.Choice([name for name in get_args(HardwareCompatibility) if name != "same_gpu"]),
    help="Build an engine that other GPUs can load too, at a cost in speed.  [default: this kind "
    "of GPU only]",
)
@click.option(
    "--workspace-gib",
    type=click.FloatRange(0, 1024, min_open=True),
    help="Scratch memory that one layer may use, in GiB. Lower it where other processes use the "
    "GPU.  [default: all that the GPU has]",
)
@click.option(
    "--strict-nans",
    is_flag=True,
    help="Use only kernels that propagate NaN and infinity as a dense product does. Off by "
    "default.",
)
@json_option("engine.json")
def build(
    artefact: Path,
    builds: int,
    compare: bool,
    version_compatible: bool,
    hardware_compatible: HardwareCompatibility | None,
    workspace_gib: float | None,
    strict_nans: bool,
    as_json: bool,
) -> None:
    """Build ARTEFACT's TensorRT engine for this machine's GPU, time it, and verify it.

    The engine fits this GPU, TensorRT, driver and the artefact's files only. Every session checks
    that before it loads the engine. spd inspect shows which matrices run on sparse kernels, and how
    much faster these are.
    """
    from exporters.tensorrt.build import BuildRequest, build_engine, refuse_other_format

    opened = open_artefact(artefact)
    refuse_other_format(opened)
    plan = read_plan(artefact)
    options = _options(plan, version_compatible, hardware_compatible, workspace_gib)
    options = replace(options, strict_nans=strict_nans or options.strict_nans)
    order = BuildRequest(builds=builds, compare=compare, options=options)
    record = build_engine(opened, order, progress=TerminalProgress())
    if as_json:
        show_json({"artefact": str(artefact), **record.to_json()})
        return
    for line in record_lines(record):
        click.echo(line)
    click.echo(f"next      spd inspect {artefact}")
    click.echo(f"          spd serve {artefact}")


def _options(
    plan: "BuildPlan",
    version_compatible: bool,
    hardware: HardwareCompatibility | None,
    gib: float | None,
) -> Options:
    """The options of the plan, overridden by those of the command line."""
    options = plan.options
    if version_compatible:
        options = replace(options, version_compatible=True)
    if hardware is not None:
        options = replace(options, hardware=hardware)
    if gib is not None:
        options = replace(options, workspace_bytes=int(gib * _GIB))
    return options
