"""A folder that holds no model is told from a damaged one, and the right one is named."""

from pathlib import Path

import pytest

from spd_deploy.domain.errors import BadCheckpoint
from spd_deploy.domain.folders import (
    CONFIG_FILE,
    MANIFEST_FILE,
    QUICKSTART_FILE,
    QUICKSTART_REPORT,
    RUN_FILE,
    SPD_FILE,
    WEIGHTS_FILE,
    Wanted,
    did_you_mean,
    refuse_no_model,
)

CHECKPOINT = (CONFIG_FILE, WEIGHTS_FILE, RUN_FILE, SPD_FILE)
ARTEFACT = (CONFIG_FILE, MANIFEST_FILE)


def made(folder: Path, *names: str) -> Path:
    """A folder with empty files of these names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("names", [CHECKPOINT, ARTEFACT, (CONFIG_FILE,), (WEIGHTS_FILE,)])
def test_what_holds_files_of_a_model_is_passed_on(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Whole or damaged, a model's folder is for its reader to judge."""
    refuse_no_model(made(tmp_path / "m", *names))


@pytest.mark.parametrize("also", [(), (CONFIG_FILE, WEIGHTS_FILE)])
def test_a_training_under_way_is_gone_on_with(tmp_path: Path, also: tuple[str, ...]) -> None:
    """Until spd.json is written the command that goes on is named, for the teacher's folder too."""
    run = made(tmp_path / "my run", RUN_FILE, *also)
    made(run / "teacher", CONFIG_FILE)

    for folder in (run, run / "teacher"):
        with pytest.raises(BadCheckpoint, match="not finished") as caught:
            refuse_no_model(folder)
        assert caught.value.fix == f"continue with: spd train --resume --output '{run}'"


def test_a_finished_teacher_is_named_where_its_student_is_not(tmp_path: Path) -> None:
    """Of an unfinished run the dense teacher that is finished can be used, and is offered."""
    run = made(tmp_path / "run", RUN_FILE)
    teacher = made(run / "teacher", CONFIG_FILE, WEIGHTS_FILE, SPD_FILE)

    refuse_no_model(teacher)
    with pytest.raises(BadCheckpoint) as caught:
        refuse_no_model(run)
    assert f"its dense teacher is finished, in {teacher}" in caught.value.fix


def test_a_quickstart_is_gone_on_with_as_one(tmp_path: Path) -> None:
    """Until its report is written neither its folder nor its run is offered another command."""
    quickstart = made(tmp_path / "q")
    (quickstart / QUICKSTART_FILE).write_text('{"task": "agreement"}')
    made(quickstart / "model", CONFIG_FILE, WEIGHTS_FILE)
    run = made(quickstart / "run", RUN_FILE)

    for folder in (quickstart, run):
        with pytest.raises(BadCheckpoint, match="not finished") as caught:
            refuse_no_model(folder)
        command = f"spd quickstart --task agreement --output {quickstart}"
        assert caught.value.fix == f"continue with: {command}"

    made(run, CONFIG_FILE, WEIGHTS_FILE, SPD_FILE)
    made(quickstart / QUICKSTART_REPORT)
    with pytest.raises(BadCheckpoint, match="holds no model") as caught:
        refuse_no_model(quickstart)
    assert str(run) in caught.value.fix


def test_several_seeds_are_gone_on_with_together(tmp_path: Path) -> None:
    """The folder of one seed leads to the command for all, as does the folder that holds them."""
    seed = made(tmp_path / "runs" / "seed-0", RUN_FILE)

    for folder in (seed, tmp_path / "runs"):
        with pytest.raises(BadCheckpoint) as caught:
            refuse_no_model(folder)
        assert f"continue with: spd train --resume --output {tmp_path / 'runs'}" in caught.value.fix


@pytest.mark.parametrize(
    ("wanted", "named", "not_named"),
    [
        ("checkpoint", ["runs/a", "runs/b"], ["out/a", "runs/c"]),
        ("artefact", ["out/a"], ["runs/a", "runs/c"]),
        ("either", ["out/a", "runs/a", "runs/b"], ["runs/c"]),
    ],
)
def test_the_folders_below_that_would_do_are_named(
    tmp_path: Path, wanted: Wanted, named: list[str], not_named: list[str]
) -> None:
    """Checkpoints and artefacts are told apart, and what is unfinished is not offered."""
    for name in ("runs/a", "runs/b"):
        made(tmp_path / name, *CHECKPOINT)
    made(tmp_path / "runs/c", RUN_FILE, CONFIG_FILE, WEIGHTS_FILE)
    made(tmp_path / "out/a", *ARTEFACT)

    with pytest.raises(BadCheckpoint, match="holds no model") as caught:
        refuse_no_model(tmp_path, wanted=wanted)

    assert caught.value.fix.startswith("did you mean ")
    assert all(str(tmp_path / name) in caught.value.fix for name in named)
    assert not any(str(tmp_path / name) in caught.value.fix for name in not_named)


def test_of_many_folders_three_are_named(tmp_path: Path) -> None:
    """The others are counted."""
    for i in range(9):
        made(tmp_path / f"m{i}", *CHECKPOINT)

    asked = did_you_mean(tmp_path)

    assert asked is not None and asked.count(str(tmp_path)) == 3
    assert asked.endswith("or one of 6 more there?")


@pytest.mark.parametrize("typed", ["runs/reveiws", "rums/reviews", "runs/review", "run"])
def test_a_slip_in_a_path_is_mended(tmp_path: Path, typed: str) -> None:
    """A part of a path that is nearly the name of a folder leads to the model."""
    made(tmp_path / "runs" / "reviews", *CHECKPOINT)

    with pytest.raises(BadCheckpoint, match="no such folder") as caught:
        refuse_no_model(tmp_path / typed)

    assert caught.value.fix == f"did you mean {tmp_path / 'runs' / 'reviews'}?"


def test_what_is_like_nothing_is_just_not_there(tmp_path: Path) -> None:
    """Nothing is guessed of a path that is near no model, or in an empty folder."""
    assert did_you_mean(tmp_path / "nowhere") is None
    assert did_you_mean(tmp_path) is None
    with pytest.raises(BadCheckpoint, match="not a folder"):
        refuse_no_model(made(tmp_path, "file") / "file")


def test_where_only_checkpoints_are_an_export_is_advised(tmp_path: Path) -> None:
    """Who needs an artefact and has checkpoints alone is told to export the first."""
    first = made(tmp_path / "a", *CHECKPOINT)

    with pytest.raises(BadCheckpoint) as caught:
        refuse_no_model(tmp_path, wanted="artefact")

    assert caught.value.fix == f"export one first: spd export {first} --output DIR"
