"""A sweep's table and figures against the files they come from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from spd_deploy.domain.checkpoint import SPD_FILE
from spd_deploy.domain.errors import BadCheckpoint
from spd_deploy.domain.files import write_json
from spd_train.plots.gaps import draw_gaps, limits
from spd_train.plots.overfitting import draw_overfitting, mean_curve, overfitting_figure
from spd_train.plots.recipe_markers import colour_of, mark_of
from spd_train.recipes import RECIPES
from spd_train.sweep.grid import Grid
from spd_train.sweep.grid_file import grid_from
from spd_train.sweep.jobs import DENSE, Job, JobPaths, StudentJob, TeacherJob
from spd_train.sweep.outcomes import Point, read_outcome, read_outcomes
from spd_train.sweep.results import Results
from spd_train.sweep.results_table import json_of, markdown_of, write_tables
from spd_train.sweep.run_record import RunRecord, write_record
from spd_train.training.metrics_log import METRICS_FILE, read_metrics_log
from tests.train.made_runs import finals, make_run

GRID: Grid = grid_from(
    {
        "model": "somewhere/minilm", "tasks": ["mrpc", "cola"],
        "patterns": ["2:4", "unstructured@0.9"], "recipes": ["spd", "prune"], "seeds": [0, 1, 2],
    }
)  # fmt: skip
FIRST, SECOND = GRID.patterns


def results_in(folder: Path, *, without: str = "nothing", grid: Grid = GRID) -> Results:
    """Made-up runs of a grid, all but those whose place holds ``without``."""
    for job in grid.jobs():
        if without not in job.folder:
            make_run(folder / job.folder, job)
    return Results(grid=grid, outcomes=read_outcomes(grid, folder))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Every run finished."""
    return results_in(tmp_path_factory.mktemp("whole"))


def cells(recipe: str, task: str) -> list[StudentJob]:
    """The seeds of one recipe at the first pattern."""
    return [StudentJob(task=task, pattern=FIRST, recipe=recipe, seed=seed) for seed in GRID.seeds]


def test_an_outcome_is_what_the_files_say(tmp_path: Path) -> None:
    """Scores come from ``spd.json``, the gap and the curve from the log, costs from the record."""
    job = cells("spd", "mrpc")[0]
    make_run(tmp_path / job.folder, job)
    write_record(
        JobPaths.of(tmp_path, job).record,
        RunRecord(settings={}, seconds=12.5, peak_memory_bytes=99),
    )

    found = read_outcome(job, tmp_path)

    records = read_metrics_log(tmp_path / job.folder / METRICS_FILE)
    final = records[-1]
    assert final["kind"] == "final"
    assert found.metric == "f1"
    assert (
        found.score
        == json.loads((tmp_path / job.folder / SPD_FILE).read_text())["scores"]["sparse"]["f1"]
    )
    assert found.gap == final["train"]["f1"] - final["dev"]["f1"]
    assert (found.steps, found.chosen_step) == (200, final["chosen_step"])
    assert (found.seconds, found.peak_memory_bytes) == (12.5, 99)
    assert [(p.train, p.holdout) for p in found.curve] == [
        (r["train"]["f1"], r["holdout"]["f1"]) for r in records if r["kind"] == "score"
    ]


def test_a_run_without_a_log_has_a_score_and_no_gap(tmp_path: Path) -> None:
    """What was not logged is not there, and nothing is made up."""
    job = cells("spd", "mrpc")[0]
    make_run(tmp_path / job.folder, job)
    (tmp_path / job.folder / METRICS_FILE).unlink()

    found = read_outcome(job, tmp_path)

    assert found.score is not None
    assert (found.gap, found.steps, found.curve) == (None, None, ())


@pytest.mark.parametrize("value", [{}, {"scores": None}, {"scores": {"dense": {"f1": 1}}}])
def test_a_damaged_run_is_named(value: dict[str, Any], tmp_path: Path) -> None:
    """A description without the scores is an error with the folder's name."""
    job = cells("spd", "mrpc")[0]
    make_run(tmp_path / job.folder, job)
    write_json(tmp_path / job.folder / SPD_FILE, value)

    with pytest.raises(BadCheckpoint, match="runs/mrpc/2-4/spd/seed-0 is damaged"):
        read_outcome(job, tmp_path)


def test_scores_are_summed_up_over_seeds(whole: Results) -> None:
    """Mean and interval of a recipe are scipy's of its three seeds, as is the gap's."""
    values = [finals(job)["dev"] for job in cells("prune", "mrpc")]
    gaps = [finals(job)["train"] - finals(job)["dev"] for job in cells("prune", "mrpc")]

    score, gap = whole.score("mrpc", FIRST, "prune"), whole.gap("mrpc", FIRST, "prune")

    assert score is not None and score.half_width is not None and gap is not None
    low, _ = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
    assert score.mean - score.half_width == pytest.approx(low)
    assert gap.mean == pytest.approx(sum(gaps) / 3)


def test_the_share_kept_is_that_of_the_means(whole: Results) -> None:
    """Sparse over dense, of the same seeds."""
    sparse = sum(finals(job)["dev"] for job in cells("spd", "cola"))
    dense = sum(finals(job.teacher)["dev"] for job in cells("spd", "cola"))

    assert whole.kept("cola", FIRST, "spd") == pytest.approx(sparse / dense)
    assert whole.kept("cola", FIRST, DENSE) == pytest.approx(1)


def test_averages_are_over_all_tasks_or_none(whole: Results, tmp_path: Path) -> None:
    """Each seed's mean over tasks counts once, and a seed that lacks a task does not count."""
    means = [
        (finals(a)["dev"] + finals(b)["dev"]) / 2
        for a, b in zip(cells("spd", "mrpc"), cells("spd", "cola"), strict=True)
    ]
    found = whole.average_score(FIRST, "spd")
    assert found is not None and list(found.values) == pytest.approx(means)

    part = results_in(tmp_path, without="cola/2-4/spd/seed-1").average_score(FIRST, "spd")

    assert part is not None and list(part.values) == pytest.approx([means[0], means[2]])
    none = results_in(tmp_path / "none", without="cola/2-4/spd")
    assert none.average_score(FIRST, "spd") is None and none.average_kept(FIRST, "spd") is None
    assert none.average_score(SECOND, "spd") is not None


def test_the_table_has_a_row_a_pattern_and_a_column_an_recipe(whole: Results) -> None:
    """Points with interval and share kept, task by task, then the averages and the gaps."""
    text = markdown_of(whole)

    assert text.startswith("# minilm: mrpc, cola\n")
    assert "30 of 30 runs are finished" in text and "means of 3 seeds ± 95 % t-interval" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## mrpc, f1", "## cola, matthews", "## Average over the tasks"
    ]  # fmt: skip
    assert text.count("| pattern | dense | spd | prune |") == text.count("`2:4`") == 6
    found, kept = whole.score("mrpc", FIRST, "spd"), whole.kept("mrpc", FIRST, "spd")
    assert found is not None and found.half_width is not None and kept is not None
    cell = f"{100 * found.mean:.1f} ± {100 * found.half_width:.1f} ({100 * kept:.1f} %)"
    row = next(line for line in text.splitlines() if line.startswith("| `2:4`"))
    assert row.split(" | ")[2] == cell


def test_what_is_missing_is_a_dash(tmp_path: Path) -> None:
    """A recipe without runs shows -, and one that lacks seeds says how many it has."""
    (tmp_path / "a").mkdir()
    text = markdown_of(results_in(tmp_path / "a", without="mrpc/2-4/spd"))
    row = next(line for line in text.splitlines() if line.startswith("| `2:4`"))
    assert row.split(" | ")[2] == "-"

    text = markdown_of(results_in(tmp_path / "b", without="mrpc/2-4/spd/seed-2"))

    assert next(line for line in text.splitlines() if line.startswith("| `2:4`")).count(
        ", 2 of 3 seeds)"
    )
    assert markdown_of(Results(grid=GRID, outcomes={})).count("| - | - | - |") == 2 * 6


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    """A grid of one seed shows bare scores and says so."""
    text = markdown_of(results_in(tmp_path, grid=replace(GRID, seeds=(0,))))

    assert "one seed" in text and "±" not in text


def test_the_json_has_every_run(whole: Results, tmp_path: Path) -> None:
    """Each job of the grid is there with its outcome or null, and each mean with its values."""
    outcomes = {j: o for j, o in whole.outcomes.items() if j != TeacherJob(task="mrpc", seed=2)}
    partial = replace(whole, outcomes=outcomes)

    markdown, file = write_tables(partial, tmp_path)

    value = json.loads(file.read_text())
    assert value == json.loads(json.dumps(json_of(partial)))
    assert markdown.read_text() == markdown_of(partial)
    assert (value["schema"], value["finished"], value["total"]) == (1, 29, 30)
    assert value["grid"]["model"] == "minilm"
    by_folder = {run["folder"]: run for run in value["runs"]}
    assert len(by_folder) == 30
    assert by_folder["teachers/mrpc/seed-2"]["outcome"] is None
    job = cells("prune", "cola")[1]
    run = by_folder[job.folder]
    assert (run["task"], run["pattern"], run["recipe"], run["seed"]) == ("cola", "2:4", "prune", 1)
    assert run["outcome"]["gap"] == whole.outcomes[job].gap
    (row,) = (
        s
        for s in value["summaries"]
        if (s["task"], s["pattern"], s["recipe"]) == ("cola", "2:4", "prune")
    )
    assert row["score"]["values"] == [finals(job)["dev"] for job in cells("prune", "cola")]


@pytest.mark.usefixtures("rendered")
def test_the_figures_are_drawn_of_whatever_is_finished(tmp_path: Path) -> None:
    """Whole, partial and empty results give two PNG files each."""
    for results in (
        results_in(tmp_path / "whole"),
        results_in(tmp_path / "part", without="unstructured"),
        Results(grid=GRID, outcomes={}),
    ):
        for file in (draw_overfitting(results, tmp_path), draw_gaps(results, tmp_path)):
            assert file.read_bytes().startswith(b"\x89PNG")


def test_curves_are_those_of_the_log(whole: Results) -> None:
    """A panel has the mean of train and of held out for each recipe, at the logged epochs."""
    figure = overfitting_figure(whole)
    drawn = [np.asarray(line.get_ydata()).tolist() for line in figure.axes[0].get_lines()]
    runs = whole.of("mrpc", FIRST, "prune")

    curve = mean_curve(runs)

    assert [p.epoch for p in curve] == [float(e) for e in range(1, 11)]
    for i, point in enumerate(curve):
        assert point.train == pytest.approx(sum(r.curve[i].train or 0 for r in runs) / 3)
    assert [p.train for p in curve] in drawn and [p.holdout for p in curve] in drawn


def test_a_mean_is_drawn_where_all_seeds_are(whole: Results) -> None:
    """An epoch that one seed has no score at is left out, and an undefined score leaves a hole."""
    one, two, _ = whole.of("mrpc", FIRST, "spd")
    short = replace(two, curve=two.curve[:4])
    undefined = replace(two, curve=(Point(epoch=1.0, train=None, holdout=0.5),))

    assert [p.epoch for p in mean_curve([one, short])] == [1, 2, 3, 4]
    assert mean_curve([one, undefined])[0].train is None
    assert mean_curve([]) == []


def test_the_axis_of_gaps_shows_zero_and_every_seed() -> None:
    """Its ends lie beyond 0 and all points, even where there are none."""
    for points in ([], [0.0], [3.0, 5.0], [-2.0, 4.0], [-2.0]):
        low, high = limits(points)
        assert low < min([0.0, *points]) and high > max([0.0, *points])


def test_every_arm_has_a_look_of_its_own() -> None:
    """No two recipes share a colour or a mark."""
    recipes = (DENSE, *RECIPES)

    assert (
        len({colour_of(recipe) for recipe in recipes})
        == len({mark_of(recipe) for recipe in recipes})
        == len(recipes)
    )


def test_finished_runs_alone_count(tmp_path: Path) -> None:
    """A run without ``spd.json`` is no outcome, whatever its log says."""
    job: Job = cells("spd", "mrpc")[0]
    make_run(tmp_path / job.folder, job)
    (tmp_path / job.folder / SPD_FILE).unlink()

    assert read_outcomes(GRID, tmp_path) == {}


def test_a_grid_without_patterns_shows_its_teachers(tmp_path: Path) -> None:
    """One row a task: the mean of the teachers' scores, as in a grid with students."""
    alone = replace(GRID, patterns=(), recipes=())

    results = results_in(tmp_path, grid=alone)

    assert results.total == len(GRID.tasks) * len(GRID.seeds)
    for task in GRID.tasks:
        scores = [results.outcomes[TeacherJob(task=task, seed=seed)].score for seed in GRID.seeds]
        (summary,) = (s for s in json_of(results)["summaries"] if s["task"] == task)
        assert (summary["pattern"], summary["recipe"]) == (None, DENSE)
        assert summary["score"]["mean"] == pytest.approx(np.mean([float(s or 0) for s in scores]))
        assert f"| `none` | {100 * summary['score']['mean']:.1f}" in markdown_of(results)
