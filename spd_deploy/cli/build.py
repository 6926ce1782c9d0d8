"""``spd build``: the engine of a trt artefact, built on the machine that will serve it."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from spd_deploy.cli.console import TerminalProgress, show_json
from spd_deploy.cli.engines import record_lines
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
    help="Engines to build, of which the fastest is kept: each comes out otherwise.",
)
@click.option(
    "--compare/--no-compare",
    default=True,
    show_default=True,
    help="Where sparse kernels may be taken, also build dense twins, and keep the fastest of all.",
)
@click.option(
    "--version-compatible", is_flag=True, help="Let later versions of TensorRT load the engine."
)
@click.option(
    "--hardware-compatible",
    type=click.Choice([name for name in get_args(HardwareCompatibility) if name != "same_gpu"]),
    help="Let other GPUs load the engine, at a cost in speed.",
)
@click.option(
    "--workspace-gib",
    type=click.FloatRange(0, 1024, min_open=True),
    help="Most scratch memory of one layer.  [default: what the GPU has]",
)
@click.option(
    "--strict-nans",
    is_flag=True,
    help="Take only kernels through which NaN and infinity pass as in a dense product.",
)
@click.option("--json", "as_json", is_flag=True, help="Print engine.json.")
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
    """Build ARTEFACT's TensorRT engine for this machine's GPU, time it, and prove what it does.

    The engine is bound to this GPU, TensorRT and driver and to the artefact's files; a session
    checks that before it loads it. spd inspect shows which matrix got a sparse kernel and what it
    gained.
    """
    from exporters.tensorrt.build import Order, build_engine, refuse_other_format

    opened = open_artefact(artefact)
    refuse_other_format(opened)
    plan = read_plan(artefact)
    options = _options(plan, version_compatible, hardware_compatible, workspace_gib)
    options = replace(options, strict_nans=strict_nans or options.strict_nans)
    order = Order(builds=builds, compare=compare, options=options)
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
    """The plan's options, but for those that were asked for."""
    options = plan.options
    if version_compatible:
        options = replace(options, version_compatible=True)
    if hardware is not None:
        options = replace(options, hardware=hardware)
    if gib is not None:
        options = replace(options, workspace_bytes=int(gib * _GIB))
    return options
