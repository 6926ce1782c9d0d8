"""``spd compare`` on own data: what it prints, and what it refuses."""

import json
import random
from pathlib import Path

import pytest

from spd_deploy.domain.tasks import TASKS
from tests.cli.running import run_in
from tests.tiny import WORDS, tiny_model

COMPARE = "compare run/teacher run --data new.csv"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student with its teacher, and rows of two sources that neither was trained on."""
    place = tmp_path_factory.mktemp("compared")
    tiny_model(place / "model", task=TASKS["sst2"], hidden=32, intermediate=64)
    draw = random.Random(0)
    words = [word for word in WORDS.split() if word.isalpha()]
    for name, count in (("old", 120), ("new", 60)):
        rows = [
            f"{' '.join(draw.choices(words, k=draw.randint(3, 12)))},{draw.choice(['no', 'yes'])},"
            f"{draw.choice(['shop', 'forum'])}"
            for _ in range(count)
        ]
        (place / f"{name}.csv").write_text("\n".join(["text,label,source", *rows, ""]))
    result = run_in(
        place,
        "train --data old.csv --text-column text --model model --pattern structured "
        "--sparsity 0.5 --epochs 1 --teacher-epochs 1 --max-tokens 16 --output run",
    )
    assert result.exit_code == 0, result.output
    return place


def test_both_models_are_scored_on_the_same_rows(place: Path) -> None:
    """The scores are those of ``spd evaluate``, and the table names both models."""
    found = json.loads(run_in(place, f"{COMPARE} --json --group-by source").stdout)

    for arm, folder in (("dense", "run/teacher"), ("sparse", "run")):
        alone = json.loads(run_in(place, f"evaluate {folder} --data new.csv --json").stdout)
        assert found[arm] == pytest.approx(alone["scores"])
    groups = {part["name"]: part["rows"] for part in found["parts"]["group"]}
    assert groups.keys() == {"shop", "forum"} and sum(groups.values()) == found["rows"] == 60
    assert len(found["worst"]) == 20
    distances = [row["distance"] for row in found["worst"] if row["dense"] == row["sparse"]]
    assert distances == sorted(distances, reverse=True)


def test_the_difference_is_told_in_words(place: Path) -> None:
    """Scores, parts, the rows that differ most, and a sentence with an interval."""
    shown = run_in(place, f"{COMPARE} --group-by source --rows 3").stdout

    for words in ("calibration error", "accuracy by source", "by tokens", "95 % interval"):
        assert words in shown
    assert "rows whose scores differ most" in shown
    assert "rows whose scores differ most" not in run_in(place, f"{COMPARE} --rows 0").stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("compare run/teacher run --data new.csv --group-by genre", "no column 'genre'"),
        ("compare other run --data new.csv", "the two models answer different tasks"),
        ("compare run/teacher run --data new.csv --split test", "no labels"),
        ("compare nowhere run --data new.csv", "nowhere"),
    ],
)
def test_what_cannot_be_compared_is_refused(place: Path, options: str, words: str) -> None:
    """One line says what is wrong."""
    if not (place / "other").exists():
        tiny_model(place / "other", task=TASKS["mnli"], hidden=32, intermediate=64)
    refused = run_in(place, options)

    assert refused.exit_code == 1
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("spd: ")]
    assert words in line
