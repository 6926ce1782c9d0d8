"""``spd sweep``: a grid of trainings in, one table and two figures out."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.cli.long_run.signals import stop_on_signals
from spd_deploy.cli.options.common import DEVICE, json_option, ray_option
from spd_deploy.cli.output.console import TerminalProgress, show_json, show_table
from spd_deploy.domain.errors import BadSetting, Interrupted, RunsFailed, SpdError
from spd_deploy.domain.extras import needs_extras
from spd_deploy.domain.ray_cluster import ray_cluster

if TYPE_CHECKING:
    from spd_train.sweep.grid import Grid
    from spd_train.sweep.results import Results
    from spd_train.sweep.run_sweep import SweepConfig


@click.command(
    epilog="""\b
Examples:
  spd sweep benchmarks/accuracy/cpu.toml --model MINILM_FOLDER --data GLUE --output sweeps/cpu
  spd sweep benchmarks/accuracy/full.toml --output sweeps/full --device cuda
  spd sweep benchmarks/accuracy/full.toml --output sweeps/full --device cuda --ray 10.0.0.1:6379
  spd sweep benchmarks/accuracy/full.toml --output sweeps/full --table-only"""
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder to write: teachers, runs, table and figures. The same folder continues a sweep.",
)
@click.option(
    "--model",
    metavar="FOLDER|NAME",
    help="Pretrained encoder: a folder, or a name on the Hugging Face hub.  [default: the file's]",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder with one folder a GLUE task.  [default: the file's, or the Hugging Face hub]",
)
@click.option(
    "--device",
    type=DEVICE,
    default="cpu",
    show_default=True,
    help="Device to train on. cuda needs an NVIDIA GPU and PyTorch with CUDA.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="COUNT",
    help="Number of runs at the same time; with --ray, on each GPU or on the cores of each "
    "machine. Lower it if memory runs out.  [default: one a core on a CPU; as many as the memory "
    "holds on a GPU; with --ray, one a GPU]",
)
@ray_option(
    "Train on the machines of a Ray cluster, which share --output, the model and the data under "
    "the same paths."
)
@click.option("--dry-run", is_flag=True, help="List the runs and their commands, and run nothing.")
@click.option(
    "--table-only",
    is_flag=True,
    help="Write table and figures of the finished runs, and run nothing. Works during a sweep too.",
)
@json_option("the table, or with --dry-run the list,")
@needs_extras("sweep", "train")
def sweep(
    file: Path, output: Path, model: str | None, data: Path | None, as_json: bool, **options: Any
) -> None:
    """Train a grid of task x pattern x recipe x seed, several runs at a time.

    FILE is a TOML file; benchmarks/accuracy has examples. Runs that are finished in --output are
    kept, and runs that were started are continued, so the same command continues after a stop,
    after a failure, and with a grid that has grown.
    """
    from spd_train.sweep.grid_file import read_grid

    grid = read_grid(file)
    grid = replace(grid, model=model or grid.model, data=data or grid.data)
    if options["dry_run"]:
        show_plan(_config(grid, output, options), as_json=as_json)
        return
    failure: SpdError | None = None
    if not options["table_only"]:
        failure = _run(grid, output, options)
    files, results = _publish(grid, output)
    if as_json:
        from spd_train.sweep.results_table import json_of

        show_json({"files": [str(f) for f in files], **json_of(results)})
    else:
        show_results(results, files)
    if failure is not None:
        raise failure


def show_plan(config: "SweepConfig", *, as_json: bool) -> None:
    """Print every run with its state, and the commands of those that are not finished."""
    from spd_train.sweep.job_state import JobState
    from spd_train.sweep.run_sweep import states_of

    rows = [
        {
            "run": str(job),
            "state": state.value,
            "command": []
            if state is JobState.FINISHED
            else config.command(job, resume=state is JobState.BEGUN),
        }
        for job, state in states_of(config.grid, config.output).items()
    ]
    if as_json:
        at_once = None if config.capacity.on_ray else config.capacity.jobs
        show_json({"jobs": at_once, "runs": rows})
        return
    show_table("", ["run", "state"], [[str(row["run"]), str(row["state"])] for row in rows])
    left = [row["command"] for row in rows if row["command"]]
    click.echo(f"\n{len(left)} of {len(rows)} runs to do, {_at_once(config)} at once")
    if left:
        click.echo(f"the first: {' '.join(left[0])}")


def show_results(results: "Results", files: Sequence[Path]) -> None:
    """Print a table for each task, and the files that were written."""
    from spd_train.sweep.results_table import rows_of

    for task in results.grid.tasks:
        show_table(
            f"{task}, {results.metric(task)} on dev x 100 (share of dense)",
            ["pattern", *results.recipes],
            rows_of(results, task),
        )
        click.echo()
    click.echo(f"{results.finished} of {results.total} runs are finished")
    for file in files:
        click.echo(f"saved   {file}")


def _run(grid: "Grid", output: Path, options: dict[str, Any]) -> SpdError | None:
    """Run the sweep. A failure or a stop is returned, so that the finished runs are shown first."""
    from spd_train.sweep.run_sweep import run_sweep

    progress = TerminalProgress()
    with (
        stop_on_signals("stops when the runs have saved their state") as should_stop,
        contextlib.ExitStack() as connected,
    ):
        config = _config(grid, output, options, should_stop)
        if config.capacity.on_ray:
            from spd_train.sweep.ray_runs import RayRuns

            # Ray prints what happens to its processes, and knows standard output only.
            connected.enter_context(contextlib.redirect_stdout(sys.stderr))
            ray = connected.enter_context(ray_cluster(options["ray"], "spd sweep --ray"))
            runs = RayRuns(ray, config.capacity)
            progress.note(f"Ray has room for {runs.at_once} runs at the same time")
            config = replace(config, start=runs.start)
        try:
            run_sweep(config, progress)
        except (Interrupted, RunsFailed) as err:
            return err
    return None


def _config(
    grid: "Grid",
    output: Path,
    options: dict[str, Any],
    should_stop: Callable[[], bool] = lambda: False,
) -> "SweepConfig":
    """The configuration of the sweep that the options make."""
    from spd_deploy.domain.cores import default_threads
    from spd_train.sweep.capacity import capacity_for, capacity_on_ray
    from spd_train.sweep.command import PROGRAM
    from spd_train.sweep.run_sweep import SweepConfig

    device = options["device"]
    of_capacity = capacity_for if options["ray"] is None else capacity_on_ray
    capacity = of_capacity(device, cores=default_threads(), jobs=options["jobs"])
    if capacity.on_ray:  # whose workers have working folders of their own
        grid, output = whole_paths(grid), output.absolute()
    return SweepConfig(
        grid=grid,
        output=output,
        capacity=capacity,
        device=device,
        program=PROGRAM,
        should_stop=should_stop,
    )


def _publish(grid: "Grid", output: Path) -> tuple[list[Path], "Results"]:
    """Write the table and the figures of the finished runs."""
    from spd_train.plots.gaps import draw_gaps
    from spd_train.plots.overfitting import draw_overfitting
    from spd_train.sweep.outcomes import read_outcomes
    from spd_train.sweep.results import Results
    from spd_train.sweep.results_table import write_tables
    from spd_train.sweep.run_record import refuse_other_settings

    if not output.is_dir():
        raise BadSetting("there is no sweep", got=output, fix="leave --table-only out to run one")
    results = Results(grid=grid, outcomes=read_outcomes(grid, output))
    refuse_other_settings(grid, output, results.outcomes)
    files = list(write_tables(results, output))
    if results.has_students:
        files += [draw_overfitting(results, output), draw_gaps(results, output)]
    return files, results


def whole_paths(grid: "Grid") -> "Grid":
    """The grid with paths that do not depend on the working folder; a name on the hub stays."""
    model = Path(grid.model)
    return replace(
        grid,
        model=str(model.absolute()) if model.is_dir() else grid.model,
        data=None if grid.data is None else grid.data.absolute(),
    )


def _at_once(config: "SweepConfig") -> str:
    """The number of runs at the same time, in words."""
    if config.capacity.on_ray:
        return "as many as Ray has room for"
    return f"{'at most ' if config.capacity.watch_gpu else ''}{config.capacity.jobs}"
