"""Several labels a row from the file to the answer: one training that all commands then read."""

import json
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from spd_deploy.domain.tasks import TASKS
from spd_deploy.hub.card import card_of
from spd_deploy.hub.model_facts import facts_of
from spd_train.recipes import recipe_named
from tests.cli.running import run_in
from tests.tiny import WORDS, tiny_model

LABELS = {"good": "praise", "bad": "blame", "film": "cinema"}
TRAIN = (
    "train --data rows.jsonl --text-column text --label-column labels --model model --threads 1 "
    "--max-tokens 16 --pattern structured --mask-updates 1 --epochs 1 --teacher-epochs 1 "
    "--class-weights balanced --focal-gamma 1 --metric macro_f1"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows with lists of labels, the same with texts, and a model trained on the first."""
    place = tmp_path_factory.mktemp("several-labels")
    tiny_model(place / "model", task=TASKS["sst2"], hidden=32, intermediate=64)
    draw, words = random.Random(0), [w for w in WORDS.split() if w.isalpha()]
    texts = [" ".join(draw.choices(words, k=draw.randint(3, 8))) for _ in range(100)]
    rows = [(text, [LABELS[w] for w in LABELS if w in text.split()]) for text in texts]
    lines = [json.dumps({"text": text, "labels": labels}) for text, labels in rows]
    (place / "rows.jsonl").write_text("\n".join(lines) + "\n")
    cells = [f"{text},{';'.join(labels)}" for text, labels in rows]
    (place / "rows.csv").write_text("\n".join(["text,labels", *cells, ""]))
    trained = run_in(place, f"{TRAIN} --output run")
    assert trained.exit_code == 0, trained.output
    (place / "said").write_text(trained.stderr)
    return place


def scores(place: Path, model: str, data: str) -> dict[str, float]:
    result = run_in(place, f"evaluate {model} --data {data} --json")
    assert result.exit_code == 0, result.output
    found: dict[str, float] = json.loads(result.stdout)["scores"]
    return found


def test_a_checkpoint_of_several_labels_is_one_of_transformers(place: Path) -> None:
    """AutoModel reads labels and problem type, and its sigmoids are the scores of spd predict."""
    model = AutoModelForSequenceClassification.from_pretrained(place / "run")
    tokenizer = AutoTokenizer.from_pretrained(place / "run")
    with torch.no_grad():
        expected = model(**tokenizer("good", return_tensors="pt")).logits.sigmoid()[0]

    answer = json.loads(run_in(place, "predict run good").stdout.splitlines()[-1])

    assert model.config.problem_type == "multi_label_classification"
    assert list(model.config.id2label.values()) == ["blame", "cinema", "praise"]
    found = [answer["scores"][label] for label in model.config.id2label.values()]
    assert found == pytest.approx(expected.tolist(), abs=1e-4)


def test_training_on_lists_says_so(place: Path) -> None:
    """That rows may have several labels, how many they have, and how many have none."""
    said = (place / "said").read_text()

    assert "column 'labels' holds lists: a row may have several labels (multi-label)" in said
    assert " labels on average, " in said and " rows have none" in said


def test_a_run_records_how_its_labels_are_weighed(place: Path) -> None:
    """With the numbers that ``balanced`` gave, and the metric that chose the checkpoint."""
    found = json.loads((place / "run/run.json").read_text())

    assert found["metric"] == "macro_f1" and found["label_loss"]["focal_gamma"] == 1.0
    assert len(found["label_loss"]["weights"]) == 3 and min(found["label_loss"]["weights"]) > 1
    assert "class weights: blame " in (place / "said").read_text()


def test_the_card_says_how_its_labels_are_weighed(place: Path) -> None:
    """It has the weight of each label; a recipe that is read from the checkpoint has none."""
    weights = json.loads((place / "run/run.json").read_text())["label_loss"]["weights"]
    recorded = json.loads((place / "run/spd.json").read_text())["recipe"]

    card = card_of(facts_of(place / "run"), "us/run", license_=None, speed=None)

    assert recorded["class_weights"] == dict(
        zip(["blame", "cinema", "praise"], weights, strict=True)
    )
    assert "| class_weights.blame | " in card and "| focal_gamma | 1 |" in card
    assert "| metric | macro_f1 |" in card
    assert recipe_named(str(place / "run")).to_json().items() <= recorded.items()


def test_lists_and_texts_are_scored_alike(place: Path) -> None:
    """The dev rows of training score as training did; the same rows in CSV are parted by ``;``."""
    recorded = json.loads((place / "run/spd.json").read_text())["scores"]["sparse"]
    csv = (place / "rows.csv").read_text().replace(";", "|")
    (place / "bars.csv").write_text(csv)

    found = scores(place, "run", "rows.jsonl")

    assert list(found) == ["macro_f1", "micro_f1", "mean_average_precision"]
    assert found == pytest.approx({name: recorded[name] for name in found}, abs=1e-4)
    assert scores(place, "run", "bars.csv") == found


def test_two_models_of_several_labels_are_compared(place: Path) -> None:
    """Row by row with all labels of a row, and by label."""
    result = run_in(place, "compare run/teacher run --data rows.jsonl --rows 3 --json")

    found = json.loads(result.stdout)

    assert result.exit_code == 0, result.output
    assert {part["name"] for part in found["parts"]["label"]} <= set(LABELS.values())
    assert len(found["worst"]) == 3


def test_thresholds_of_several_labels_are_chosen(place: Path) -> None:
    """A threshold for each label, on the rows that were not trained on."""
    result = run_in(
        place, "calibrate run --data rows.jsonl --threshold-for *:f1 --output calibrated --json"
    )

    assert result.exit_code == 0, result.output
    task = json.loads((place / "calibrated/spd.json").read_text())["task"]
    assert set(task["decision"]["thresholds"]) <= set(LABELS.values())
    assert task["decision"]["thresholds"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--task sst2 --multi-label", "--multi-label goes with --text-column"),
        ("--data rows.csv --text-column text --label-separator ;", "goes with --multi-label"),
        (
            "--data rows.csv --text-column text --multi-label --regression",
            "--multi-label or --regression, not both",
        ),
        ("--task sst2 --ordinal", "--ordinal goes with --text-column"),
        (
            "--data rows.csv --text-column text --ordinal --multi-label",
            "--multi-label or --ordinal, not both",
        ),
        ("--data rows.csv --text-column text --label-order a,b", "goes with --ordinal"),
        (
            "--data rows.csv --text-column text --ordinal --label-order a,b,a",
            "name each of two or more labels once",
        ),
        (
            "--data rows.csv --text-column text --multi-label --label-separator=",
            "a separator cannot be blank",
        ),
    ],
    ids=[
        *("glue", "separator alone", "regression", "glue ordered", "both", "order alone", "twice"),
        "blank",
    ],
)
def test_options_that_contradict_are_refused(place: Path, options: str, said: str) -> None:
    """In one line, before anything is read."""
    result = run_in(place, f"train {options} --model model --output no")

    assert result.exit_code == 2 and said in result.output
