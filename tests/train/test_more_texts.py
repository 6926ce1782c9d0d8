"""Unlabelled texts beside the training rows: the student learns them from its teacher alone."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.progress import Silent
from spd_train.data.examples import Example
from spd_train.recipes import with_field
from spd_train.run import TEACHER_FOLDER, run
from spd_train.training.metrics_log import METRICS_FILE, final_record
from tests.tiny import tiny_model
from tests.train.runs import DATA, QUICK, TASK, config_for, examples, student_config

MORE = [Example(text=e.text) for e in examples(24)]


def test_only_the_student_sees_them(tmp_path: Path) -> None:
    """The teacher is the same bit for bit; the student has steps for all rows of an epoch."""
    model = tiny_model(tmp_path / "m", task=TASK)
    alone, more = (
        run(replace(config_for(model, tmp_path / name), data=data), Silent())
        for name, data in (("alone", DATA), ("more", DATA.with_more(MORE)))
    )

    teachers = [load_file(c.folder / TEACHER_FOLDER / "model.safetensors") for c in (alone, more)]
    assert all(torch.equal(teachers[0][name], teachers[1][name]) for name in teachers[0])
    assert _steps(more.folder) / _steps(alone.folder) == (len(DATA.train) + 24) / len(DATA.train)


def test_a_label_beside_them_has_no_effect(tmp_path: Path) -> None:
    """The student of wrongly labelled texts is that of unlabelled ones; other texts change it."""
    teacher = tiny_model(tmp_path / "t", task=TASK)
    wrong = [replace(example, label=1.0) for example in MORE]
    other = [replace(example, text=f"{example.text} !") for example in MORE]
    plain, labelled, changed = (
        load_file(
            run(
                student_config(teacher, tmp_path / name, QUICK, DATA.with_more(rows)), Silent()
            ).weights
        )
        for name, rows in (("plain", MORE), ("labelled", wrong), ("changed", other))
    )

    assert all(torch.equal(plain[name], labelled[name]) for name in plain)
    assert not all(torch.equal(plain[name], changed[name]) for name in plain)


def test_they_change_the_run(tmp_path: Path) -> None:
    """A run with them is another run than one without: it cannot be resumed as the other."""
    config = student_config(tmp_path, tmp_path / "o", QUICK)
    found = {
        str(replace(config, data=data).settings()["data_sha256"])
        for data in (DATA, DATA.with_more(MORE), DATA.with_more(MORE[1:]))
    }
    assert len(found) == 3


@pytest.mark.parametrize("what", ["label", "pattern"])
def test_they_are_refused_where_nothing_can_label_them(tmp_path: Path, what: str) -> None:
    """A loss to the labels has none to learn; without a student nobody reads them."""
    teacher = tiny_model(tmp_path / "t", task=TASK)
    recipe = (
        with_field(QUICK, "student.losses.label", 1.0)
        if what == "label"
        else replace(QUICK, pattern=None)
    )
    config = student_config(teacher, tmp_path / "o", recipe, DATA.with_more(MORE))
    with pytest.raises(BadSetting, match="unlabelled texts"):
        run(replace(config, model=str(teacher) if what == "pattern" else None), Silent())


def _steps(folder: Path) -> int:
    """The steps of a finished run."""
    return int(final_record(folder / METRICS_FILE)["step"])
