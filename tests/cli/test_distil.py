"""``spd distil`` as a user types it: what it prints, what it refuses, and how it is resumed."""

import json
from pathlib import Path

import pytest

import spd_deploy as spd
from tests.cli.running import run_in
from tests.cli.user_folder import user_folder
from tests.tiny import tiny_checkpoint

DISTIL = (
    "distil --texts reviews.csv --text-column review --model MINILM_FOLDER --pattern 2:4 "
    "--max-steps 10 --calibration-tokens 256 --threads 1 --output out"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, texts, and what may be named in their place."""
    place = user_folder(tmp_path_factory.mktemp("distil"))
    tiny_checkpoint(place / "checkpoint")
    (place / "empty.csv").write_text("")
    (place / "header.csv").write_text("review\n")
    (place / "one.csv").write_text("review\nThe film was good.\n")
    (place / "taken").mkdir()
    (place / "taken" / "thesis").write_text("mine")
    return place


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("--texts reviews.csv", "", "name at least one file of texts with --texts"),
        ("--model MINILM_FOLDER", "", "name the encoder to prune with --model"),
        ("--pattern 2:4", "", "say which weights become zero: --pattern 2:4"),
        ("--pattern 2:4", "--speedup 2", "No such option '--speedup'"),
        ("--pattern 2:4", "--pattern 4:2", "4:2"),
        ("reviews.csv", "nowhere.csv", "nowhere.csv"),
        ("reviews.csv", "empty.csv", "empty.csv is empty"),
        ("reviews.csv", "header.csv", "header.csv"),
        ("reviews.csv", "one.csv", "there are too few texts; got 1"),
        ("--text-column review", "--text-column revue", "revue"),
        ("--output out", "--output taken", "taken already exists"),
        ("--model MINILM_FOLDER", "--model checkpoint", "checkpoint is a classifier"),
        ("--model MINILM_FOLDER", "--model ./nowhere", "no such model folder"),
        ("--output out", "--output out --resume", "nothing to resume"),
        ("--output out", "--output out --exclude quary", "no matrix has such a name"),
        ("--max-steps 10", "--max-steps 0", "--max-steps must be at least 1"),
    ],
)
def test_bad_input_is_one_line(place: Path, before: str, after: str, said: str) -> None:
    """The line names what is wrong, and nothing is written."""
    result = run_in(place, DISTIL.replace(before, after))

    assert result.exit_code in (1, 2)
    assert said in result.output
    assert result.output.strip().splitlines()[-1].startswith(("spd: ", "Error: "))
    assert "Traceback" not in result.output
    assert not (place / "out").exists()
    assert [p.name for p in (place / "taken").iterdir()] == ["thesis"]


def test_the_encoder_is_shown_and_is_not_made_twice(place: Path) -> None:
    """A finished run says how close it is and what to type next; --resume shows it again."""
    first = run_in(place, f"{DISTIL.replace('output out', 'output shown')} --holdout 0.2")
    again = run_in(place, "distil --resume --output shown --json")

    assert first.exit_code == 0, first.output
    assert "of the dense encoder's hidden variance on 20 texts" in first.stdout
    assert "next    spd train --model shown --keep-masks" in first.stdout
    found = json.loads(again.stdout)
    assert (found["pattern"], found["density"]) == ("2:4", 0.5)
    assert found["held_out"] == 20 and not (place / "shown" / "spd.json").exists()


def test_a_run_is_resumed_by_its_own_command(place: Path) -> None:
    """The other command refuses it in one line that names spd distil."""
    assert run_in(place, DISTIL.replace("output out", "output own")).exit_code == 0

    result = run_in(place, "train --resume --output own")

    assert result.exit_code == 1
    assert "is one of spd distil; got spd train --resume; use spd distil --resume" in result.output


def test_python_gives_what_the_command_gives(place: Path, tmp_path: Path) -> None:
    """The function writes the same ``distil.json`` as the command with the same options."""
    made = run_in(place, DISTIL.replace("output out", "output typed"))
    assert made.exit_code == 0, made.output

    found = spd.distil(
        texts=place / "reviews.csv",
        text_column="review",
        model=place / "MINILM_FOLDER",
        pattern="2:4",
        max_steps=10,
        calibration_tokens=256,
        threads=1,
        output=tmp_path / "called",
    )

    typed = json.loads((place / "typed" / "distil.json").read_text())
    assert found.to_json() == {"encoder": str(tmp_path / "called"), **typed}
    assert "2:4 at 50%" in repr(found)
