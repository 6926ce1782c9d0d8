"""A step's rows over processes and parts, and that splitting a step changes nothing."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spd_deploy.domain.checkpoint import SPD_FILE, WEIGHTS_FILE, open_checkpoint
from spd_deploy.domain.long_texts import TextWindows, WindowPooling
from spd_deploy.domain.progress import Silent
from spd_train.config import Recipe
from spd_train.recipes import with_field
from spd_train.run import run
from spd_train.train_config import TrainConfig
from spd_train.training.distributed import Distributed, micro_batches
from spd_train.training.metrics_log import METRICS_FILE, Record, read_metrics_log
from spd_train.training.state import STATE_FILE
from tests.tiny import tiny_model
from tests.train.runs import QUICK, TASK, config_for, spd_recipe

MOVING = with_field(spd_recipe(), "student.pruning.importance", "movement")
RECIPES = {
    "spd": spd_recipe(),
    # So low a start that in some steps no student is in place, and nothing is averaged.
    "rarely": with_field(
        with_field(MOVING, "student.graft.start", 0.1), "student.graft.unit", "layer"
    ),
}


def calm(recipe: Recipe) -> Recipe:
    """The recipe without what makes much of rounding: dropout drawn by part, and the solver.

    Conjugate gradients on few texts stop an iteration sooner or later for a difference in the last
    bit; all else answers to a small difference with a small one.
    """
    return with_field(
        with_field(recipe, "student.dropout", False), "student.pruning.reconstruct", False
    )


def in_windows(config: TrainConfig) -> TrainConfig:
    """The run with texts that are read in windows of six tokens."""
    recipe = replace(config.recipe, max_tokens=6)
    return replace(config, recipe=recipe, windows=TextWindows(pooling=WindowPooling.MAX))


def parts_of(windows: list[int], count: int, accumulate: int, most: int) -> list[list[list[int]]]:
    """The micro-batches of each process."""
    return [
        micro_batches(windows, world_size=count, rank=rank, accumulate=accumulate, most=most)
        for rank in range(count)
    ]


@given(rows=st.integers(0, 200), count=st.integers(1, 9), accumulate=st.integers(1, 9))
def test_every_row_is_dealt_once(rows: int, count: int, accumulate: int) -> None:
    """Over all processes and parts each row is computed once, and parts differ by one row."""
    most = -(-max(rows, 1) // (count * accumulate))
    parts = [part for own in parts_of([1] * rows, count, accumulate, most) for part in own]

    assert sorted(row for part in parts for row in part) == list(range(rows))
    assert len(parts) == count * accumulate
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(
    windows=st.lists(st.integers(1, 9), max_size=60),
    count=st.integers(1, 5),
    accumulate=st.integers(1, 5),
    most=st.integers(1, 12),
)
def test_no_micro_batch_has_more_windows_than_are_allowed(
    windows: list[int], count: int, accumulate: int, most: int
) -> None:
    """A text with more is alone; every text is computed once, in as many parts by each process."""
    by_rank = parts_of(windows, count, accumulate, most)
    parts = [part for own in by_rank for part in own]

    assert sorted(row for part in parts for row in part) == list(range(len(windows)))
    assert all(len(part) == 1 or sum(windows[i] for i in part) <= most for part in parts)
    assert len({len(own) for own in by_rank}) == 1 and len(by_rank[0]) >= accumulate


@given(rows=st.integers(0, 50), count=st.integers(1, 5), accumulate=st.integers(1, 5))
def test_parts_are_the_same_however_they_are_spread(rows: int, count: int, accumulate: int) -> None:
    """So many processes compute what one does that accumulates as many parts."""
    spread = [part for own in parts_of([1] * rows, count, accumulate, 50) for part in own]

    assert [spread] == parts_of([1] * rows, 1, count * accumulate, 50)


def test_alone_there_is_nothing_to_agree_on() -> None:
    """One process is the main one, and what it says is what all say."""
    alone = Distributed()

    assert alone.is_main and alone.any(True) and not alone.any(False)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned classifier."""
    place = tmp_path_factory.mktemp("processes")
    model = tiny_model(place / "model", task=TASK, hidden=32, intermediate=64)
    return run(config_for(model, place / "teacher", replace(QUICK, pattern=None)), Silent()).folder


def train(teacher: Path, output: Path, recipe: Recipe) -> list[Record]:
    """A student's run in this process; returns its log."""
    config = config_for(teacher, output, recipe)
    run(replace(config, model=None, teacher=str(teacher)), Silent())
    return read_metrics_log(output / METRICS_FILE)


def assert_alike(ours: list[Record], theirs: list[Record], *, within: float) -> None:
    """The losses of every step agree."""
    pairs = list(zip(ours, theirs, strict=True))
    steps = [(a, b) for a, b in pairs if a["kind"] == b["kind"] == "step"]
    assert len(steps) == 24
    for a, b in steps:
        assert a["graft_probability"] == b["graft_probability"]
        assert a["sparsity"] == b["sparsity"]
        assert a["loss"] == pytest.approx(b["loss"], rel=within, abs=within)


@pytest.fixture(scope="module")
def whole(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Record]]:
    """The log of each recipe's calm run in whole steps."""
    place = tmp_path_factory.mktemp("whole")
    return {name: train(teacher, place / name, calm(recipe)) for name, recipe in RECIPES.items()}


@pytest.mark.parametrize("name", RECIPES)
def test_accumulation_changes_nothing(
    teacher: Path, whole: dict[str, list[Record]], tmp_path: Path, name: str
) -> None:
    """The losses of a calm run in two or three parts are those of one in whole steps."""
    for accumulate in (2, 3):
        parts = replace(calm(RECIPES[name]), accumulate=accumulate)

        parted = train(teacher, tmp_path / f"{accumulate} parts", parts)

        assert_alike(parted, whole[name], within=1e-5)


@pytest.fixture(scope="module")
def two(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two real processes made: see ``tests.train.two_processes``."""
    place = tmp_path_factory.mktemp("two")
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"),
            *("-m", "tests.train.two_processes", str(teacher), str(place)),
        ],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return place


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_are_one_that_accumulates(
    teacher: Path, two: Path, tmp_path: Path, name: str
) -> None:
    """Two processes end with the bits of one that computes each step in two parts."""
    alone = train(teacher, tmp_path / "alone", replace(RECIPES[name], accumulate=2))

    together = two / name
    assert read_metrics_log(together / METRICS_FILE) == alone
    ours, theirs = together / WEIGHTS_FILE, tmp_path / "alone" / WEIGHTS_FILE
    assert ours.read_bytes() == theirs.read_bytes()


def test_two_processes_have_the_losses_of_one(two: Path, whole: dict[str, list[Record]]) -> None:
    """Two processes log what one does in a calm run on the same whole batches."""
    found = read_metrics_log(two / "calm" / METRICS_FILE)

    assert_alike(found, whole["spd"], within=1e-5)


def test_two_processes_resume_to_the_bit(two: Path) -> None:
    """Stopped by one of them while pruning and while fine-tuning, they end as if never stopped."""
    resumed, whole = two / "spd-resumed", two / "spd"

    assert read_metrics_log(resumed / METRICS_FILE) == read_metrics_log(whole / METRICS_FILE)
    assert (resumed / WEIGHTS_FILE).read_bytes() == (whole / WEIGHTS_FILE).read_bytes()
    assert (resumed / SPD_FILE).read_text() == (whole / SPD_FILE).read_text()
    assert not (resumed / STATE_FILE).exists()


def test_what_two_processes_finished_is_finished_for_both(two: Path) -> None:
    """Resuming a finished run returns its checkpoint on each process; none waits for the other."""
    said = [json.loads((two / f"finished-{rank}.json").read_text()) for rank in (0, 1)]

    assert said == [json.loads(json.dumps(open_checkpoint(two / "spd").to_json()))] * 2


def test_windows_are_spread_over_processes(teacher: Path, two: Path, tmp_path: Path) -> None:
    """Two processes, each in as many parts as the windows need, have the losses of one."""
    config = config_for(teacher, tmp_path / "alone", calm(RECIPES["spd"]))
    run(in_windows(replace(config, model=None, teacher=str(teacher))), Silent())

    ours, theirs = (read_metrics_log(f / METRICS_FILE) for f in (two / "windows", config.output))
    assert_alike(ours, theirs, within=1e-4)
