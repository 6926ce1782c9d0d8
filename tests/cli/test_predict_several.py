"""``spd predict`` with a multi-label classifier from elsewhere: every label that is given."""

import csv
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from spd_deploy.domain.tasks import TASKS
from tests.cli.running import run_in
from tests.tiny import tiny_model

TEXTS = ("the film was good", "a bad bus", "never dull")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Transformers folder whose problem type is multi-label, and its artefact."""
    place = tmp_path_factory.mktemp("several")
    tiny_model(place / "model", task=TASKS["mnli"], hidden=32, intermediate=64)
    config = json.loads((place / "model/config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (place / "model/config.json").write_text(json.dumps(config))
    (place / "texts.csv").write_text("text\n" + "\n".join(TEXTS) + "\n")
    made = run_in(place, "export model --format onnx --output artefact")
    assert made.exit_code == 0, made.output
    return place


def test_every_label_from_a_half_on_is_given(place: Path) -> None:
    """Labels and scores are the sigmoids of Transformers; a table joins the labels by a bar."""
    model = AutoModelForSequenceClassification.from_pretrained(place / "model")
    tokenizer = AutoTokenizer.from_pretrained(place / "model")
    with torch.no_grad():
        rows = [model(**tokenizer(t, return_tensors="pt")).logits.sigmoid()[0] for t in TEXTS]
    labels = TASKS["mnli"].labels

    jsonl = run_in(place, "predict artefact --input texts.csv --output-format jsonl").stdout
    table = run_in(place, "predict artefact --input texts.csv").stdout

    lines = [json.loads(line) for line in jsonl.splitlines() if line.startswith("{")]
    cells = list(csv.DictReader(line for line in table.splitlines() if "," in line))
    for row, line, cell in zip(rows, lines, cells, strict=True):
        expected = {
            label for label, score in zip(labels, row.tolist(), strict=True) if score >= 0.5
        }
        assert set(line["labels"]) == expected and "label" not in line
        assert [line["scores"][name] for name in labels] == pytest.approx(row.tolist(), abs=1e-4)
        assert cell["labels"] == "|".join(line["labels"])
