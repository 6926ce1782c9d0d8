"""Whole runs that are stopped: a resumed one ends as if it never was, or it is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from spd_deploy.domain.checkpoint import SPD_FILE, WEIGHTS_FILE
from spd_deploy.domain.errors import BadCheckpoint, BadSetting, Interrupted, NotWritten
from spd_deploy.domain.folders import RUN_FILE
from spd_deploy.domain.progress import Silent
from spd_train.run import run
from spd_train.training.metrics_log import METRICS_FILE, read_metrics_log
from spd_train.training.state import STATE_FILE
from tests.train.runs import QUICK, StopAfter, config_for


@pytest.mark.parametrize("stops", [[5], [12 + 3], [12 + 12], [2, 12 + 5, 7]])
def test_resumed_equals_uninterrupted(
    model: Path, finished: Path, tmp_path: Path, stops: list[int]
) -> None:
    """A run stopped in any training, once or often, ends with the bits of one that was not."""
    config = config_for(model, tmp_path / "run")
    for i, steps in enumerate(stops):
        with pytest.raises(Interrupted, match="stopped at step"):
            run(replace(config, resume=i > 0, should_stop=StopAfter(steps)), Silent())
        assert not (tmp_path / "run" / SPD_FILE).exists()

    run(replace(config, resume=True), Silent())

    for part in (".", "teacher"):
        ours, theirs = tmp_path / "run" / part, finished / part
        assert (ours / WEIGHTS_FILE).read_bytes() == (theirs / WEIGHTS_FILE).read_bytes()
        assert (ours / SPD_FILE).read_text() == (theirs / SPD_FILE).read_text()
        assert read_metrics_log(ours / METRICS_FILE) == read_metrics_log(theirs / METRICS_FILE)


def test_a_finished_run_is_not_run_again(model: Path, finished: Path) -> None:
    """Resuming what is finished gives the checkpoint that is there."""
    before = (finished / WEIGHTS_FILE).stat().st_mtime_ns

    found = run(replace(config_for(model, finished), resume=True), Silent())

    assert found.folder == finished
    assert (finished / WEIGHTS_FILE).stat().st_mtime_ns == before


def test_other_settings_do_not_resume(model: Path, finished: Path) -> None:
    """A resumed run with another seed is refused, naming both."""
    config = replace(config_for(model, finished, replace(QUICK, seed=1)), resume=True)

    with pytest.raises(BadSetting, match=r"another recipe\.seed"):
        run(config, Silent())


def test_an_output_that_exists_is_not_touched(model: Path, finished: Path) -> None:
    """Without --resume a folder with something in it is refused."""
    with pytest.raises(NotWritten, match="already exists"):
        run(config_for(model, finished), Silent())


def test_there_must_be_something_to_resume(model: Path, tmp_path: Path) -> None:
    """Resuming an empty folder says that there is no run."""
    with pytest.raises(BadCheckpoint, match=RUN_FILE) as caught:
        run(replace(config_for(model, tmp_path / "new"), resume=True), Silent())

    assert "no run to resume" in caught.value.fix


def test_a_state_of_another_run_is_refused(model: Path, tmp_path: Path) -> None:
    """A state file that was copied in from elsewhere is found out."""
    for name, seed in (("a", 0), ("b", 1)):
        config = config_for(model, tmp_path / name, replace(QUICK, seed=seed))
        with pytest.raises(Interrupted):
            run(replace(config, should_stop=StopAfter(3)), Silent())
    shutil.copy(tmp_path / "a/teacher" / STATE_FILE, tmp_path / "b/teacher" / STATE_FILE)

    with pytest.raises(BadCheckpoint, match="belongs to a run with other settings"):
        run(replace(config, resume=True), Silent())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_never_trained_blocks_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """Whatever ends a run before its first saved state, its folder is free for the next try."""
    config = config_for(model, tmp_path / "run")

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("spd_train.run.prepare_run", fail)
        with pytest.raises(error):
            run(config, Silent())
        assert not (tmp_path / "run").exists()

    with pytest.raises(Interrupted):
        run(replace(config, should_stop=StopAfter(1)), Silent())
    with monkeypatch.context() as patch:
        patch.setattr("spd_train.run.prepare_run", fail)
        with pytest.raises(error):
            run(replace(config, resume=True), Silent())
    assert (tmp_path / "run" / RUN_FILE).exists()  # of a run that was begun nothing is removed
