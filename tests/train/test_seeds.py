"""Several seeds: the interval against scipy, and runs that go on where they stopped."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spd_deploy.cli.output.seeds_table import show_seeds
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadSetting, Interrupted, NotWritten
from spd_train.seeds import SEEDS_FILE, run_seeds, summarise

numbers = st.lists(st.floats(-1, 1), min_size=2, max_size=8)


@given(values=numbers)
def test_the_interval_is_scipys(values: list[float]) -> None:
    """Mean and ends are those of scipy's t-distribution at the standard error of the mean."""
    found = summarise(values)

    assert found is not None and found.half_width is not None
    assert found.mean == pytest.approx(sum(values) / len(values))
    error = stats.sem(values)
    if error > 1e-12:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=found.mean, scale=error)
        assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx(
            (low, high)
        )
    else:
        assert found.half_width == pytest.approx(0, abs=1e-9)


def test_one_value_has_no_interval() -> None:
    """A single seed says nothing of its spread."""
    found = summarise([0.8])

    assert found is not None
    assert (found.mean, found.half_width, found.count) == (0.8, None, 1)
    assert found.to_json() == {"mean": 0.8, "low": None, "high": None, "values": [0.8]}


def test_undefined_values_do_not_count() -> None:
    """None and NaN are left out, and of nothing there is no summary."""
    found = summarise([None, 0.5, float("nan"), 0.7])

    assert found is not None and found.values == (0.5, 0.7)
    assert summarise([None, float("inf")]) is None
    assert summarise([]) is None


class Trainer:
    """Finishes a run at once, with a score that is the seed's; it stops at one seed when asked."""

    def __init__(self, checkpoint: Checkpoint, *, stop_at: int | None = None) -> None:
        self.checkpoint = checkpoint
        self.stop_at = stop_at
        self.calls: list[tuple[int, bool]] = []

    def __call__(self, seed: int, folder: Path, resume: bool) -> Checkpoint:
        self.calls.append((seed, resume))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.jsonl").touch()
        if seed == self.stop_at:
            raise Interrupted("stopped", fix="--resume")
        scores = {"dense": {"accuracy": 0.9}, "sparse": {"accuracy": seed / 10}}
        return replace(self.checkpoint, folder=folder, scores=scores)


def test_seeds_are_trained_and_summed_up(
    dense_checkpoint: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three seeds from 4 on give three folders, seeds.json, and a table of mean and interval."""
    trainer = Trainer(dense_checkpoint)

    seeds = run_seeds(trainer, first=4, count=3, output=tmp_path / "out", resume=False)

    assert trainer.calls == [(4, False), (5, False), (6, False)]
    value = json.loads((tmp_path / "out" / SEEDS_FILE).read_text())
    assert value["runs"] == {"4": "seed-4", "5": "seed-5", "6": "seed-6"}
    sparse = value["scores"]["sparse"]["accuracy"]
    low, high = stats.t.interval(0.95, 2, loc=0.5, scale=stats.sem([0.4, 0.5, 0.6]))
    assert (sparse["mean"], sparse["low"], sparse["high"]) == pytest.approx((0.5, low, high))
    show_seeds(seeds)
    shown = capsys.readouterr().out
    assert "0.5000 ± 0.2484" in shown and "0.6000" in shown and "seed 6" in shown


def test_stopped_seeds_go_on(dense_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Resuming visits finished and stopped seeds with resume, and the rest without."""
    with pytest.raises(Interrupted):
        run_seeds(
            Trainer(dense_checkpoint, stop_at=1), first=0, count=3, output=tmp_path, resume=False
        )
    assert not (tmp_path / SEEDS_FILE).exists()
    trainer = Trainer(dense_checkpoint)

    run_seeds(trainer, first=0, count=3, output=tmp_path, resume=True)

    assert trainer.calls == [(0, True), (1, True), (2, False)]
    assert (tmp_path / SEEDS_FILE).exists()


def test_what_is_there_stays(dense_checkpoint: Checkpoint, tmp_path: Path) -> None:
    """A folder in use is refused without resume, an empty one with it, and so is no seed at all."""
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis").touch()
    trainer = Trainer(dense_checkpoint)

    with pytest.raises(NotWritten, match="already exists"):
        run_seeds(trainer, first=0, count=2, output=tmp_path / "used", resume=False)
    with pytest.raises(BadSetting, match="no run to resume"):
        run_seeds(trainer, first=0, count=2, output=tmp_path / "new", resume=True)
    with pytest.raises(BadSetting, match="--seeds"):
        run_seeds(trainer, first=0, count=0, output=tmp_path / "new", resume=False)
    assert trainer.calls == []
