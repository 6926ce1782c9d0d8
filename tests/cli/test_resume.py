"""A stopped training is gone on with by ``spd train --resume --output DIR``, from any folder."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from spd_deploy.cli import train as train_module
from spd_deploy.cli.long_run.resume import run_to_resume
from spd_deploy.domain.checkpoint import SPD_FILE, WEIGHTS_FILE
from spd_deploy.domain.folders import COMMAND, RUN_FILE
from spd_deploy.domain.latency_table import write_latency_table
from spd_deploy.domain.tasks import TASKS
from spd_train.family_folders import FAMILY_FILE
from tests.cli.running import run_in
from tests.cli.user_folder import mrpc_files
from tests.tiny import tiny_model
from tests.train.latency import latency_table
from tests.train.runs import StopAfter

COMMAND_LINE = (
    "train --task mrpc --data MRPC --model model --pattern block:8x1 --sparsity 0.5 "
    "--epochs 0.7 --teacher-epochs 0.4 --batch-size 16 --max-tokens 32 --exclude layer.0 --seed 3 "
    "--no-dropout --calibration-tokens 64 --output"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a model, and a run that was never stopped."""
    place = tmp_path_factory.mktemp("resume")
    mrpc_files(place / "MRPC")
    tiny_model(place / "model", task=TASKS["mrpc"], hidden=32, intermediate=64)
    (place / "elsewhere").mkdir()
    assert run_in(place, f"{COMMAND_LINE} whole").exit_code == 0
    return place


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Iterator["Stopper"]:
    """Something that stops the next command after some steps."""
    yield Stopper(monkeypatch)


class Stopper:
    """Stands in for the user at the keyboard."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch

    def __call__(self, steps: int) -> None:
        """Stop after so many steps of the command; 0 for never."""

        @contextlib.contextmanager
        def stop_on_signals() -> Iterator[StopAfter]:
            yield StopAfter(steps or -1)

        self.patch.setattr(train_module, "stop_on_signals", stop_on_signals)


def same_bits(ours: Path, theirs: Path) -> bool:
    """Whether two runs gave the same student and teacher."""
    return all(
        (ours / part / WEIGHTS_FILE).read_bytes() == (theirs / part / WEIGHTS_FILE).read_bytes()
        for part in (".", "teacher")
    )


def assert_stopped(result: Result, output: str) -> None:
    """It ended as a stopped command does, and named the way to go on."""
    assert result.exit_code == 130, result.output
    assert f"continue with: spd train --resume --output {output}" in result.stderr


@pytest.mark.parametrize("steps", [1, 4], ids=["in the teacher", "in the student"])
def test_a_run_knows_its_command(place: Path, stop_after: Stopper, steps: int) -> None:
    """From another folder and with nothing else said, it ends with the bits of one not stopped."""
    output = place / f"stopped-{steps}"
    stop_after(steps)
    assert_stopped(run_in(place, f"{COMMAND_LINE} {output}"), str(output))
    stop_after(0)

    result = run_in(place / "elsewhere", f"train --resume --output ../{output.name}")

    assert result.exit_code == 0, result.output
    assert same_bits(output, place / "whole")


def test_what_is_said_again_may_only_be_the_same(place: Path, stop_after: Stopper) -> None:
    """Options that are repeated change nothing, others are refused by the setting that differs."""
    stop_after(1)
    run_in(place, f"{COMMAND_LINE} again")
    stop_after(0)
    resume = "train --resume --output again"
    for other, name in (
        ("--epochs 3", "recipe.student.prune_epochs"),
        ("--seed 4", "recipe.seed"),
        ("--pattern 2:4 --sparsity 0.5", "recipe.pattern"),
        ("--recipe prune", "recipe.name"),
    ):
        refused = run_in(place, f"{resume} {other}")
        assert refused.exit_code == 1
        assert f"had another {name}; got " in refused.stderr

    result = run_in(place, f"{resume} --epochs 0.7 --model model --seed 3 --batch-size 16")

    assert result.exit_code == 0, result.output
    assert same_bits(place / "again", place / "whole")


def test_a_finished_run_is_shown_without_its_data(place: Path, tmp_path: Path) -> None:
    """Going on with what is finished needs neither data nor model, and changes nothing."""
    copy = Path(shutil.copytree(place / "whole", tmp_path / "run"))

    result = run_in(tmp_path, "train --resume --output run --json")

    assert result.exit_code == 0, result.output
    assert "run is finished already" in result.stderr
    assert json.loads(result.stdout)["recipe"]["seed"] == 3
    assert same_bits(copy, place / "whole")


def test_several_seeds_go_on_together(place: Path, stop_after: Stopper) -> None:
    """A stop in the second of two seeds, and both are there after --resume alone."""
    whole = json.loads((place / "whole" / "log.jsonl").read_text().splitlines()[-1])
    teacher = json.loads((place / "whole/teacher/log.jsonl").read_text().splitlines()[-1])
    first = whole["step"] + teacher["step"]
    command = COMMAND_LINE.replace("--output", "--seeds 2 --output seeds")
    stop_after(first + 2)
    assert_stopped(run_in(place, command), "seeds")
    assert (place / "seeds/seed-3" / SPD_FILE).exists()
    stop_after(0)
    alone = run_in(place, "train --resume --output seeds/seed-3")

    result = run_in(place / "elsewhere", "train --resume --output ../seeds")

    assert alone.exit_code == result.exit_code == 0, alone.output + result.output
    found = json.loads((place / "seeds/seeds.json").read_text())
    assert found["runs"] == {"3": "seed-3", "4": "seed-4"}
    assert same_bits(place / "seeds/seed-3", place / "whole")
    assert not same_bits(place / "seeds/seed-4", place / "whole")


def test_a_run_of_one_seed_takes_no_others(place: Path) -> None:
    """Several seeds in the folder of one run would lie inside it."""
    result = run_in(place, "train --resume --output whole --seeds 2")

    assert result.exit_code == 1
    assert "the run that is resumed has one seed; got --seeds 2" in result.stderr


def test_a_run_without_its_command_needs_it_whole(place: Path, tmp_path: Path) -> None:
    """What an older version began is gone on with by the whole command, as ever."""
    copy = Path(shutil.copytree(place / "whole", tmp_path / "old"))
    (copy / SPD_FILE).unlink()
    value = json.loads((copy / RUN_FILE).read_text())
    del value[COMMAND]
    (copy / RUN_FILE).write_text(json.dumps(value))

    alone = run_in(place, f"train --resume --output {copy}")
    result = run_in(place, f"{COMMAND_LINE} {copy} --resume")

    assert alone.exit_code == 2 and "--task" in alone.stderr
    assert result.exit_code == 0, result.output
    assert same_bits(copy, place / "whole")


def test_a_dense_training_says_so_at_both_ends(place: Path) -> None:
    """Without a pattern nothing becomes sparse: told before the work, and after it."""
    words = "train --task mrpc --data MRPC --model model --teacher-epochs 0.1 --output dense"

    result = run_in(place, words)

    assert result.exit_code == 0, result.output
    assert "neither --speedup nor --pattern is given: only the dense model" in result.stderr
    assert "no --pattern was given" in result.stdout and "--teacher dense" in result.stdout
    assert "--pattern" not in run_in(place, "train --resume --output whole").output


@pytest.mark.parametrize(
    ("speedups", "kept"), [([3.0], {"speedups", "max_drop"}), ([2.0, 3.0], set()), (None, set())]
)
def test_a_family_of_one_is_resumed_as_a_family(
    tmp_path: Path, speedups: list[float] | None, kept: set[str]
) -> None:
    """A run in its family's own folder keeps the speed-up; a member of several is a run alone."""
    command = {"speedups": speedups, "max_drop": 1.0, "epochs": 2.0, "seeds": 3}
    (tmp_path / RUN_FILE).write_text(json.dumps({COMMAND: command}))

    found = run_to_resume(tmp_path)[COMMAND]

    assert set(found) == {"epochs"} | kept


def test_more_texts_are_read_again(place: Path, stop_after: "Stopper") -> None:
    """A run with unlabelled texts of its own goes on from another folder as if never stopped."""
    texts = [{"text": "a good film", "text_pair": f"a bus number {i}"} for i in range(20)]
    (place / "more.jsonl").write_text("\n".join(map(json.dumps, texts)))
    line = COMMAND_LINE.replace("--output", "--more-texts more.jsonl --output")
    whole = run_in(place, f"{line} with-more")
    stop_after(4)
    stopped = run_in(place, f"{line} with-more-stopped")
    stop_after(0)
    again = run_in(place / "elsewhere", "train --resume --output ../with-more-stopped")

    assert (whole.exit_code, stopped.exit_code, again.exit_code) == (0, 130, 0)
    assert "20 more texts for the student" in whole.stderr
    first, second = (
        (place / n / WEIGHTS_FILE).read_bytes() for n in ("with-more", "with-more-stopped")
    )
    assert first == second


FAMILY_LINE = (
    "train --task mrpc --data MRPC --model model --epochs 0.7 --teacher-epochs 0.4 "
    "--batch-size 16 --max-tokens 32 --calibration-tokens 64 --latency-table times.json "
    "--any-machine"
)


def test_a_student_that_was_not_compared_yet_is_compared(place: Path) -> None:
    """A stop after the training of the one student: --resume alone writes the comparison."""
    write_latency_table(place / "times.json", latency_table(hidden=32, intermediate=64))
    whole = run_in(place, f"{FAMILY_LINE} --speedup 1.2 --output one")
    compared = (place / "one" / FAMILY_FILE).read_bytes()
    (place / "one" / FAMILY_FILE).unlink()

    again = run_in(place / "elsewhere", "train --resume --output ../one")

    assert (whole.exit_code, again.exit_code) == (0, 0), whole.output + again.output
    assert (place / "one" / FAMILY_FILE).read_bytes() == compared
    finished = run_in(place / "elsewhere", "train --resume --output ../one")
    assert "is finished already" in finished.stderr


def test_a_family_goes_on_with_the_student_that_was_stopped(
    place: Path, stop_after: "Stopper"
) -> None:
    """A stop in the second of two speed-ups, and both are there after --resume alone."""
    write_latency_table(place / "times.json", latency_table(hidden=32, intermediate=64))
    line = f"{FAMILY_LINE} --speedup 1.2,1.5 --output"
    whole = run_in(place, f"{line} family")
    stop_after(len((place / "family/1.2x/log.jsonl").read_text().splitlines()))
    stopped = run_in(place, f"{line} stopped-family")
    first_of_two, second_of_two = (place / "stopped-family" / name for name in ("1.2x", "1.5x"))
    assert (first_of_two / SPD_FILE).exists()
    assert (second_of_two / RUN_FILE).exists() and not (second_of_two / SPD_FILE).exists()
    stop_after(0)
    again = run_in(place / "elsewhere", "train --resume --output ../stopped-family")

    assert whole.exit_code == 0, whole.output
    assert_stopped(stopped, "stopped-family")
    assert again.exit_code == 0, again.output
    for member in ("1.2x", "1.5x"):
        first, second = (
            (place / family / member / WEIGHTS_FILE).read_bytes()
            for family in ("family", "stopped-family")
        )
        assert first == second
