"""The table of a sweep, as Markdown for readers and as JSON for programs."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spd_deploy.domain.files import write_json, write_text
from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.versions import versions_of
from spd_train.seeds import LEVEL, SeedSummary
from spd_train.sweep.jobs import DENSE, Job, StudentJob, pattern_text
from spd_train.sweep.results import Results

TABLE_JSON, TABLE_MD = "table.json", "table.md"
SCHEMA = 1
_MISSING = "-"


def write_tables(results: Results, output: Path) -> tuple[Path, Path]:
    """Write ``table.md`` and ``table.json`` of the finished runs. Returns both paths."""
    write_text(output / TABLE_MD, markdown_of(results))
    write_json(output / TABLE_JSON, json_of(results))
    return output / TABLE_MD, output / TABLE_JSON


def markdown_of(results: Results) -> str:
    """The table as Markdown: a section for each task, and averages over several tasks."""
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
        lines += _table(results, lambda p, recipe: _points(results.average_gap(p, recipe)))
    return "\n".join(lines) + "\n"


def rows_of(results: Results, task: str) -> list[list[str]]:
    """The rows of a task's table: the pattern, the dense score, and a cell for each recipe."""
    return _rows(results, partial(_score_cell, results, task))


def json_of(results: Results) -> dict[str, Any]:
    """All runs, finished or not, with summaries and averages, as JSON values."""
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
                "pattern": None if pattern is None else pattern_text(pattern),
                "recipe": recipe,
                "metric": results.metric(task),
                "score": _json(results.score(task, pattern, recipe)),
                "kept": results.kept(task, pattern, recipe),
                "gap": _json(results.gap(task, pattern, recipe)),
            }
            for task in grid.tasks
            for pattern in results.patterns
            for recipe in results.recipes
        ],
        "averages": [
            {
                "pattern": None if pattern is None else pattern_text(pattern),
                "recipe": recipe,
                "score": _json(results.average_score(pattern, recipe)),
                "kept": results.average_kept(pattern, recipe),
                "gap": _json(results.average_gap(pattern, recipe)),
            }
            for pattern in results.patterns
            for recipe in results.recipes
        ],
    }


def _run_json(results: Results, job: Job) -> dict[str, Any]:
    """One run as JSON values; ``outcome`` is null if it is not finished."""
    outcome = results.outcomes.get(job)
    return {
        "task": job.task,
        "pattern": pattern_text(job.pattern) if isinstance(job, StudentJob) else None,
        "sparsity": job.pattern.sparsity if isinstance(job, StudentJob) else None,
        "recipe": job.recipe if isinstance(job, StudentJob) else DENSE,
        "seed": job.seed,
        "folder": job.folder,
        "outcome": None if outcome is None else outcome.to_json(),
    }


def _over(seeds: int) -> str:
    """The values that a number is the mean of, in words."""
    return "one seed" if seeds == 1 else f"means of {seeds} seeds ± {100 * LEVEL:.0f} % t-interval"


def _table(results: Results, cell: Callable[[Pattern | None, str], str]) -> list[str]:
    """A Markdown table with a row for each pattern and a column for each recipe."""
    head = ["pattern", *results.recipes]
    rows = [[f"`{row[0]}`", *row[1:]] for row in _rows(results, cell)]
    rule = ["---", *("---:" for _ in results.recipes)]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]


def _rows(results: Results, cell: Callable[[Pattern | None, str], str]) -> list[list[str]]:
    """The cells of a table as text: a row for each pattern, and in it a cell for each recipe."""
    return [
        [_named(pattern), *(cell(pattern, recipe) for recipe in results.recipes)]
        for pattern in results.patterns
    ]


def _named(pattern: Pattern | None) -> str:
    """The name of a pattern's row."""
    return "none" if pattern is None else pattern_text(pattern)


def _score_cell(results: Results, task: str, pattern: Pattern | None, recipe: str) -> str:
    """Score, share of the dense score, and number of seeds if some are missing."""
    score = results.score(task, pattern, recipe)
    kept = None if recipe == DENSE else results.kept(task, pattern, recipe)
    return _with_remarks(score, kept, len(results.grid.seeds))


def _gap_cell(results: Results, task: str, pattern: Pattern | None, recipe: str) -> str:
    """The gap between train and dev in points."""
    return _points(results.gap(task, pattern, recipe))


def _average_cell(results: Results, pattern: Pattern | None, recipe: str) -> str:
    """Average score over the tasks, share of the dense score, and number of seeds."""
    kept = None if recipe == DENSE else results.average_kept(pattern, recipe)
    return _with_remarks(results.average_score(pattern, recipe), kept, len(results.grid.seeds))


def _with_remarks(score: SeedSummary | None, kept: float | None, seeds: int) -> str:
    """A score with its remarks, such as ``85.2 ± 1.2 (99.1 %)``."""
    if score is None:
        return _MISSING
    remarks: Sequence[str] = [
        *([] if kept is None else [f"{kept:.1%}".replace("%", " %")]),
        *([f"{score.count} of {seeds} seeds"] if score.count < seeds else []),
    ]
    return _points(score) + (f" ({', '.join(remarks)})" if remarks else "")


def _points(summary: SeedSummary | None) -> str:
    """A share as points with half the interval's width, such as ``85.2 ± 1.2``."""
    if summary is None:
        return _MISSING
    interval = "" if summary.half_width is None else f" ± {100 * summary.half_width:.1f}"
    return f"{100 * summary.mean:.1f}{interval}"


def _json(summary: SeedSummary | None) -> dict[str, Any] | None:
    """A summary as JSON values; None stays None."""
    return None if summary is None else summary.to_json()
