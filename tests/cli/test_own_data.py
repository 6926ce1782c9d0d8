"""Own data from one file: train, evaluate, int8 and prune all use one split."""

import json
import random
import re
from pathlib import Path

import pytest

from spd_deploy.domain.checkpoint import SPD_FILE
from spd_deploy.domain.tasks import TASKS
from tests.cli.running import run_in
from tests.tiny import WORDS, tiny_model

ON = "--text-column review --data reviews.tsv"
TRAIN = f"train {ON} --label-column stars --model model --max-tokens 16 --teacher-epochs 1"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TSV file as pandas writes it, trained on."""
    place = tmp_path_factory.mktemp("own")
    tiny_model(place / "model", task=TASKS["sst2"], hidden=32, intermediate=64)
    draw, words = random.Random(0), WORDS.split()
    texts = [" ".join(draw.choices(words, k=draw.randint(3, 30))) for _ in range(200)]
    lines = [f'"{text} ""so"""\t{draw.choice(["1", "5"])}\t{i}' for i, text in enumerate(texts)]
    (place / "reviews.tsv").write_text("\n".join(["review\tstars\tticket", *lines, ""]))
    result = run_in(place, f"{TRAIN} --output run")
    assert result.exit_code == 0, result.output
    (place / "said").write_text(result.stderr)
    return place


def record(place: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads((place / "run" / SPD_FILE).read_text())
    return found


def test_training_begins_with_what_the_data_looks_like(place: Path) -> None:
    """Rows, labels with counts, lengths, and how many texts are cut stand before the first step."""
    said = (place / "said").read_text()

    start = said[: said.index("teacher:")] if "teacher:" in said else said
    assert "data: 162 rows to train on, 18 validation rows" in start
    assert re.search(r"labels: '1' \(\d+ rows\), '5' \(\d+ rows\)\n", start)
    assert re.search(r"lengths of train: .*; \d+ of 180 \(.* %\) are cut at 16 tokens", start)
    assert re.search(r"lengths of dev: .* of 20 .*\(a higher --max-tokens cuts fewer", start)


def test_the_task_is_called_after_the_file(place: Path) -> None:
    """In the checkpoint, and so wherever a task is named."""
    assert record(place)["task"]["name"] == "reviews"
    assert "reviews" in run_in(place, "inspect run").stdout


def test_evaluate_scores_what_training_held_out(place: Path) -> None:
    """The file that was trained on gives the score that training gave, and names the rows."""
    result = run_in(place, "evaluate run --data reviews.tsv --json")

    found = json.loads(result.stdout)
    assert (found["split"], found["rows"]) == ("dev, a tenth of the file", 20)
    known = record(place)["scores"]["dense"]
    assert found["scores"] == pytest.approx(known)
    assert "are cut at 16 tokens" in result.stderr
    shown = run_in(place, "evaluate run --data reviews.tsv --split train").output
    assert "reviews, train: 180 rows" in shown and "these rows were trained on" in shown


def test_prune_scores_what_training_held_out(place: Path) -> None:
    """A pruned model's dense score is the one that training gave, on the same split."""
    command = "prune run --pattern unstructured --mask-updates 1 --data reviews.tsv --output pruned"

    result = run_in(place, command)

    assert result.exit_code == 0, result.output
    found = json.loads((place / "pruned" / SPD_FILE).read_text())
    assert found["split"] == "dev, a tenth of the file"
    assert found["scores"]["dense"] == pytest.approx(record(place)["scores"]["dense"])
    assert found["task"]["trained_on"] == record(place)["task"]["trained_on"]


def test_an_artefact_knows_the_rows_too(place: Path) -> None:
    """An int8 artefact is judged on what was held out, and evaluated on the same rows."""
    result = run_in(
        place, "export run --precision int8 --data reviews.tsv --max-drop 100 --output int8"
    )

    assert result.exit_code == 0, result.output
    manifest = json.loads((place / "int8" / "manifest.json").read_text())
    assert manifest["split"] == "dev, a tenth of the file"
    found = json.loads(run_in(place, "evaluate int8 --data reviews.tsv --json").stdout)
    assert (found["split"], found["rows"]) == ("dev, a tenth of the file", 20)
    metric = next(iter(found["scores"]))
    assert found["scores"][metric] in [
        pytest.approx(arm[metric]) for arm in manifest["scores"].values()
    ]
    assert manifest["calibration"]["int8"]["after"] == pytest.approx(found["calibration"], abs=1e-6)


def test_a_renamed_file_is_no_other_task_for_a_teacher(place: Path) -> None:
    """What own data is called decides nothing: labels do."""
    (place / "again.tsv").write_bytes((place / "reviews.tsv").read_bytes())
    command = TRAIN.replace("reviews.tsv", "again.tsv").replace("--model model", "--teacher run")

    result = run_in(place, f"{command} --pattern unstructured --epochs 0.5 --output again")

    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (TRAIN.replace("--label-column stars", "--label-column ticket"), "too many different"),
        (TRAIN.replace("reviews.tsv", "review.tsv"), "did you mean reviews.tsv?"),
        (TRAIN.replace("--label-column stars", "--label-column review"), "must differ"),
        ("evaluate run --data model", "has no file for dev"),
    ],
)
def test_data_that_cannot_be_meant_is_refused(place: Path, command: str, said: str) -> None:
    """One line says what is wrong, and nothing is left behind."""
    result = run_in(place, f"{command} --output out" if command.startswith("train") else command)

    assert result.exit_code == 1
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("spd: "))
    assert said in line
    assert not (place / "out").exists()
