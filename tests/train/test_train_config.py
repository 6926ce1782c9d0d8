"""What a resumed run must have as it was: each field of a request counts, or is known not to."""

from dataclasses import fields
from pathlib import Path

from spd_train.train_config import TrainConfig
from tests.train.runs import QUICK, student_config

# Where a run is written, how it is stopped, what only checks the result or tells of the time.
WITHOUT_INFLUENCE = {
    "output",
    "resume",
    "should_stop",
    "command",
    "measure",
    "origins",
    "track",
    "on_record",
    "later_students",
    "later_runs",
}


def test_every_field_of_a_request_is_compared_or_known_to_have_no_influence(
    teacher: Path, tmp_path: Path
) -> None:
    """A new field is in ``settings``, without which a resumed run would ignore that it changed."""
    compared = {
        name.removesuffix("_sha256")
        for name in student_config(teacher, tmp_path / "r", QUICK).settings()
    }

    assert compared | WITHOUT_INFLUENCE == {field.name for field in fields(TrainConfig)}
    assert not compared & WITHOUT_INFLUENCE
