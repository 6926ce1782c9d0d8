"""``spd sweep``: a grid of trainings in, one table and two figures out."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.cli.console import TerminalProgress, show_json, show_table
from spd_deploy.cli.signals import stop_on_signals
from spd_deploy.domain.errors import BadSetting, Interrupted, RunsFailed, SpdError

if TYPE_CHECKING:
    from spd_train.sweep.grid import Grid
    from spd_train.sweep.results import Results
    from spd_train.sweep.run_sweep import Sweep


@click.command(
    epilog="""\b
Examples:
  spd sweep benchmarks/accuracy/cpu.toml --model MINILM_FOLDER --data GLUE --output sweeps/cpu
  spd sweep benchmarks/accuracy/full.toml --output sweeps/full --device cuda
  spd sweep benchmarks/accuracy/full.toml --output sweeps/full --table-only"""
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--model", help="Pretrained BERT, instead of the grid's.")
@click.option(
    "--data", type=click.Path(path_type=Path), help="GLUE's folder, instead of the grid's."
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    help="Runs at once. Default: on a CPU one a core, on a GPU as many as its memory takes.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be run, and run nothing.")
@click.option("--table-only", is_flag=True, help="Make the table and figures of what is finished.")
@click.option("--json", "as_json", is_flag=True, help="Print the table, or the plan, as JSON.")
def sweep(
    file: Path, output: Path, model: str | None, data: Path | None, as_json: bool, **options: Any
) -> None:
    """Train a grid of task x pattern x arm x seed, each run a process, as many as fit.

    FILE is a TOML file; benchmarks/accuracy holds some. What is finished in --output is passed
    over and what was begun goes on, so the same command continues after a stop, a failure or a
    grid that has grown.
    """
    from spd_train.sweep.grid_file import read_grid

    grid = read_grid(file)
    grid = replace(grid, model=model or grid.model, data=data or grid.data)
    if options["dry_run"]:
        show_plan(_sweep(grid, output, options), as_json=as_json)
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


def show_plan(planned: "Sweep", *, as_json: bool) -> None:
    """Every run with its state and, where something is left to do, its command."""
    from spd_train.sweep.job_state import JobState
    from spd_train.sweep.run_sweep import states_of

    rows = [
        {
            "run": str(job),
            "state": state.value,
            "command": []
            if state is JobState.FINISHED
            else planned.command(job, resume=state is JobState.BEGUN),
        }
        for job, state in states_of(planned.grid, planned.output).items()
    ]
    if as_json:
        show_json({"processes": planned.room.processes, "runs": rows})
        return
    show_table("", ["run", "state"], [[str(row["run"]), str(row["state"])] for row in rows])
    left = [row["command"] for row in rows if row["command"]]
    click.echo(f"\n{len(left)} of {len(rows)} runs to do, {_at_once(planned)} at once")
    if left:
        click.echo(f"the first: {' '.join(left[0])}")


def show_results(results: "Results", files: Sequence[Path]) -> None:
    """A table a task, and where all is written."""
    from spd_train.sweep.results_table import rows_of

    for task in results.grid.tasks:
        show_table(
            f"{task}, {results.metric(task)} on dev x 100 (share of dense)",
            ["pattern", *results.arms],
            rows_of(results, task),
        )
        click.echo()
    click.echo(f"{results.finished} of {results.total} runs are finished")
    for file in files:
        click.echo(f"saved   {file}")


def _run(grid: "Grid", output: Path, options: dict[str, Any]) -> SpdError | None:
    """Run the sweep; a failure or a stop is returned, since what is finished is shown first."""
    from spd_train.sweep.run_sweep import run_sweep

    with stop_on_signals("stops when the runs have saved their states") as should_stop:
        try:
            run_sweep(_sweep(grid, output, options, should_stop), TerminalProgress())
        except (Interrupted, RunsFailed) as err:
            return err
    return None


def _sweep(
    grid: "Grid",
    output: Path,
    options: dict[str, Any],
    should_stop: Callable[[], bool] = lambda: False,
) -> "Sweep":
    """The options as the one value that decides the sweep."""
    from spd_deploy.domain.cores import default_threads
    from spd_train.sweep.capacity import room_for
    from spd_train.sweep.command import PROGRAM
    from spd_train.sweep.run_sweep import Sweep

    device = options["device"]
    room = room_for(device, cores=default_threads(), processes=options["processes"])
    return Sweep(
        grid=grid,
        output=output,
        room=room,
        device=device,
        program=PROGRAM,
        should_stop=should_stop,
    )


def _publish(grid: "Grid", output: Path) -> tuple[list[Path], "Results"]:
    """The table and the figures of what is finished."""
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


def _at_once(planned: "Sweep") -> str:
    """How many runs go side by side."""
    return f"{'at most ' if planned.room.watch_gpu else ''}{planned.room.processes}"
