"""A sweep's table, as Markdown for readers and as JSON for programs."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spd_deploy.domain.files import write_json, write_text
from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.versions import versions_of
from spd_train.seeds import LEVEL, Summary
from spd_train.sweep.jobs import DENSE, Job, StudentJob, spelled
from spd_train.sweep.results import Results

TABLE_JSON, TABLE_MD = "table.json", "table.md"
SCHEMA = 1
_MISSING = "-"


def write_tables(results: Results, output: Path) -> tuple[Path, Path]:
    """Write ``table.md`` and ``table.json`` of what is finished."""
    write_text(output / TABLE_MD, markdown_of(results))
    write_json(output / TABLE_JSON, json_of(results))
    return output / TABLE_MD, output / TABLE_JSON


def markdown_of(results: Results) -> str:
    """One section a task, and the averages over all tasks where there are several."""
    grid = results.grid
    lines = [
        f"# {Path(grid.model).name}: {', '.join(grid.tasks)}",
        "",
        f"{results.finished} of {results.total} runs are finished. Scores on dev, times 100, "
        f"{_over(len(grid.seeds))}; in brackets the share of the dense score that is kept; "
        f"{_MISSING} is not there. The gap is the score on train minus that on dev.",
    ]
    for task in grid.tasks:
        lines += ["", f"## {task}, {results.metric(task)}", ""]
        lines += _table(results, partial(_score_cell, results, task))
        lines += ["", "Gap, train minus dev:", ""]
        lines += _table(results, partial(_gap_cell, results, task))
    if len(grid.tasks) > 1:
        lines += ["", "## Average over the tasks", ""]
        lines += _table(results, partial(_average_cell, results))
        lines += ["", "Gap, train minus dev:", ""]
        lines += _table(results, lambda p, arm: _points(results.average_gap(p, arm)))
    return "\n".join(lines) + "\n"


def rows_of(results: Results, task: str) -> list[list[str]]:
    """The rows of a task's table: pattern, the dense score, and a cell an arm."""
    return _rows(results, partial(_score_cell, results, task))


def json_of(results: Results) -> dict[str, Any]:
    """Every run, finished or not, and what they say together."""
    grid = results.grid
    return {
        "schema": SCHEMA,
        "versions": versions_of(),
        "grid": grid.to_json(),
        "level": LEVEL,
        "finished": results.finished,
        "total": results.total,
        "runs": [_run_json(results, job) for job in grid.jobs()],
        "summaries": [
            {
                "task": task,
                "pattern": None if pattern is None else spelled(pattern),
                "arm": arm,
                "metric": results.metric(task),
                "score": _json(results.score(task, pattern, arm)),
                "kept": results.kept(task, pattern, arm),
                "gap": _json(results.gap(task, pattern, arm)),
            }
            for task in grid.tasks
            for pattern in results.patterns
            for arm in results.arms
        ],
        "averages": [
            {
                "pattern": None if pattern is None else spelled(pattern),
                "arm": arm,
                "score": _json(results.average_score(pattern, arm)),
                "kept": results.average_kept(pattern, arm),
                "gap": _json(results.average_gap(pattern, arm)),
            }
            for pattern in results.patterns
            for arm in results.arms
        ],
    }


def _run_json(results: Results, job: Job) -> dict[str, Any]:
    """One run; ``outcome`` is null where it is not finished."""
    outcome = results.outcomes.get(job)
    return {
        "task": job.task,
        "pattern": spelled(job.pattern) if isinstance(job, StudentJob) else None,
        "sparsity": job.pattern.sparsity if isinstance(job, StudentJob) else None,
        "arm": job.arm if isinstance(job, StudentJob) else DENSE,
        "seed": job.seed,
        "folder": job.place,
        "outcome": None if outcome is None else outcome.to_json(),
    }


def _over(seeds: int) -> str:
    """What the numbers are the mean of."""
    return "one seed" if seeds == 1 else f"means of {seeds} seeds ± {100 * LEVEL:.0f} % t-interval"


def _table(results: Results, cell: Callable[[Pattern | None, str], str]) -> list[str]:
    """A Markdown table: a row a pattern, a column an arm."""
    head = ["pattern", *results.arms]
    rows = [[f"`{row[0]}`", *row[1:]] for row in _rows(results, cell)]
    rule = ["---", *("---:" for _ in results.arms)]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]


def _rows(results: Results, cell: Callable[[Pattern | None, str], str]) -> list[list[str]]:
    """The same as lists."""
    return [
        [_named(pattern), *(cell(pattern, arm) for arm in results.arms)]
        for pattern in results.patterns
    ]


def _named(pattern: Pattern | None) -> str:
    """A row's name."""
    return "none" if pattern is None else spelled(pattern)


def _score_cell(results: Results, task: str, pattern: Pattern | None, arm: str) -> str:
    """The score, how much of dense that is, and over how many seeds where some are missing."""
    found = results.score(task, pattern, arm)
    kept = None if arm == DENSE else results.kept(task, pattern, arm)
    return _with_remarks(found, kept, len(results.grid.seeds))


def _gap_cell(results: Results, task: str, pattern: Pattern | None, arm: str) -> str:
    """The gap in points."""
    return _points(results.gap(task, pattern, arm))


def _average_cell(results: Results, pattern: Pattern | None, arm: str) -> str:
    """The same over tasks."""
    kept = None if arm == DENSE else results.average_kept(pattern, arm)
    return _with_remarks(results.average_score(pattern, arm), kept, len(results.grid.seeds))


def _with_remarks(found: Summary | None, kept: float | None, seeds: int) -> str:
    """Such as ``85.2 ± 1.2 (99.1 %)``."""
    if found is None:
        return _MISSING
    remarks: Sequence[str] = [
        *([] if kept is None else [f"{kept:.1%}".replace("%", " %")]),
        *([f"{found.count} of {seeds} seeds"] if found.count < seeds else []),
    ]
    return _points(found) + (f" ({', '.join(remarks)})" if remarks else "")


def _points(found: Summary | None) -> str:
    """A share in points, such as ``85.2 ± 1.2``."""
    if found is None:
        return _MISSING
    reach = "" if found.reach is None else f" ± {100 * found.reach:.1f}"
    return f"{100 * found.mean:.1f}{reach}"


def _json(found: Summary | None) -> dict[str, Any] | None:
    """A summary as plain JSON values."""
    return None if found is None else found.to_json()
