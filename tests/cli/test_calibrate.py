"""``spd calibrate``: a model that is too sure, mended, exported, served; and what is refused."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from starlette.testclient import TestClient
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import spd_deploy as spd
from spd_deploy.domain.tasks import TASKS
from tests.cli.running import run_in
from tests.tiny import WORDS, tiny_model

CALIBRATE = "calibrate model --task sst2 --data SST-2"
FACTOR = 6.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, rendered: None) -> Path:
    """A classifier whose logits are six times too large, and labels drawn from the right ones."""
    place = tmp_path_factory.mktemp("sure")
    tiny_model(place / "model", task=TASKS["sst2"], hidden=32, intermediate=64)
    state = load_file(place / "model/model.safetensors")
    draw = random.Random(0)
    words = [word for word in WORDS.split() if word.isalpha()]
    texts = [" ".join(draw.choices(words, k=draw.randint(3, 12))) for _ in range(600)]
    with spd.load(place / "model") as model:
        logits = [np.log(a.scores["positive"] / a.scores["negative"]) for a in model.predict(texts)]
    spread = 2.5 / float(np.std(logits))  # so that scores tell something of the labels
    middle = float(np.mean(logits))
    lines = ["sentence\tlabel"]
    for text, logit in zip(texts, logits, strict=True):
        chance = 1 / (1 + np.exp(-spread * (logit - middle)))
        lines.append(f"{text}\t{int(draw.random() < chance)}")
    state["classifier.weight"] *= FACTOR * spread
    state["classifier.bias"] *= FACTOR * spread
    state["classifier.bias"][1] -= FACTOR * spread * middle
    save_file(state, place / "model/model.safetensors", metadata={"format": "pt"})
    (place / "SST-2").mkdir()
    for name in ("train", "dev"):
        (place / f"SST-2/{name}.tsv").write_text("\n".join(lines))
    made = run_in(
        place,
        f"{CALIBRATE} --threshold-for positive:precision=0.95 --abstain-below 0.6 --output sure",
    )
    assert made.exit_code == 0, made.output
    exported = run_in(place, "export sure --format onnx --output artefact")
    assert exported.exit_code == 0, exported.output
    return place


def test_the_scores_fit_the_truth_afterwards(place: Path) -> None:
    """The temperature is what the logits were multiplied by, and both errors fall."""
    found = json.loads((place / "sure/spd.json").read_text())["calibration"]["dense"]
    before = json.loads(run_in(place, "evaluate model --task sst2 --data SST-2 --json").stdout)
    after = json.loads(run_in(place, "evaluate artefact --data SST-2 --json").stdout)

    assert found["temperature"] == pytest.approx(FACTOR, rel=0.15)
    assert found["before"]["expected"] == pytest.approx(before["calibration"]["expected"])
    assert found["after"]["expected"] == pytest.approx(after["calibration"]["expected"], abs=1e-4)
    assert after["calibration"]["expected"] < before["calibration"]["expected"] / 2
    assert after["calibration"]["brier"] < before["calibration"]["brier"]
    assert (place / "sure/reliability.png").stat().st_size > 5000


def test_transformers_gives_the_calibrated_scores(place: Path) -> None:
    """The temperature is in the weights: the checkpoint and its artefact agree without spd."""
    text = "the film was never dull"
    model = AutoModelForSequenceClassification.from_pretrained(place / "sure")
    tokens = AutoTokenizer.from_pretrained(place / "sure")(text, return_tensors="pt")
    with torch.no_grad():
        scores = model(**tokens).logits.softmax(-1)[0].tolist()

    with spd.load(place / "artefact") as loaded:
        answer = loaded.predict(text)

    assert [answer.scores[label] for label in ("negative", "positive")] == pytest.approx(
        scores, abs=1e-4
    )


def test_the_threshold_keeps_its_promise_when_served(place: Path) -> None:
    """On the rows it was chosen on the precision is reached, in predict and over HTTP alike."""
    rows = [line.split("\t") for line in (place / "SST-2/dev.tsv").read_text().splitlines()[1:]]
    with spd.load(place / "artefact") as loaded:
        answers = loaded.predict([text for text, _ in rows])
    app = spd.create_app(place / "artefact")
    with TestClient(app) as client:
        body = {"inputs": [{"text": text} for text, _ in rows[:20]]}
        while client.get("/readyz").status_code != 200:
            pass
        native = client.post("/v1/classify", json=body).json()["results"]
        vllm = client.post("/classify", json={"input": [text for text, _ in rows[:20]]}).json()

    right = [label == "1" for (_, label), a in zip(rows, answers, strict=True)
             if a.label == "positive"]  # fmt: skip
    assert right and np.mean(right) >= 0.94  # an abstention may take a right one away
    assert any(answer.abstained for answer in answers)
    for answer, one, other in zip(answers, native, vllm["data"], strict=False):
        assert one["predicted"] == ([] if answer.abstained else [answer.label])
        assert one["abstained"] == answer.abstained
        assert other["label"] == answer.label


def test_an_artefact_gets_another_threshold(place: Path) -> None:
    """Its weights stay the same; its temperature is refused, since it is in them."""
    made = run_in(
        place, "calibrate artefact --data SST-2 --threshold-for negative:f1 --output other"
    )
    refused = run_in(place, "calibrate artefact --data SST-2 --output again")

    assert made.exit_code == 0, made.output
    shown = run_in(place, "inspect other").stdout
    assert "threshold of negative" in shown and "abstains" not in shown
    assert (place / "other/weights.bin").read_bytes() == (
        place / "artefact/weights.bin"
    ).read_bytes()
    assert refused.exit_code == 1 and "in its weights already" in refused.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--threshold-for positive", "is not understood"),
        ("--threshold-for good:f1", "does not have"),
        ("--threshold-for positive:precision=1.5", "at most 1"),
        ("--data nowhere", "no such data"),
    ],
)
def test_what_makes_no_threshold_is_refused(place: Path, options: str, words: str) -> None:
    """One line says what is wrong, and nothing is written."""
    refused = run_in(place, f"{CALIBRATE} {options} --output none")

    assert refused.exit_code == 1
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("spd: ")]
    assert words in line and not (place / "none").exists()


def test_a_number_is_not_calibrated(place: Path) -> None:
    """A regression is refused before any data is read."""
    tiny_model(place / "number", task=TASKS["stsb"], hidden=32, intermediate=64)

    refused = run_in(place, "calibrate number --task stsb --data SST-2 --output none")

    assert refused.exit_code == 1 and "answers a number" in refused.stderr
