"""Scores of one output and of several, against Transformers' own pipeline."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from transformers import pipeline

import spd_deploy as spd
from exporters.export import artefact_from_checkpoint
from serve.open_model import open_served
from spd_deploy.domain.checkpoint import open_checkpoint
from spd_deploy.domain.tasks import own_task
from tests.serve.clients import client_of
from tests.tiny import tiny_model

TEXT = "the film was not good"
KINDS: dict[str, tuple[list[str], str | None, str]] = {
    "cross-encoder": (["LABEL_0"], None, "sigmoid"),
    "cross-encoder with a name": (["relevance"], None, "sigmoid"),
    "one of many labels": (["spam"], "multi_label_classification", "sigmoid"),
    "regression": (["score"], "regression", "none"),
    "many labels": (["a", "b", "c"], "multi_label_classification", "sigmoid"),
    "classes": (["a", "b", "c"], "single_label_classification", "softmax"),
    "classes of no declared type": (["a", "b", "c"], None, "softmax"),
}


def folder_of(folder: Path, labels: Sequence[str], problem: str | None) -> Path:
    """A tiny model whose config.json names these labels and this problem type."""
    from transformers import AutoConfig

    from tests.tiny import classifier_of

    tiny_model(folder)
    config = AutoConfig.from_pretrained(folder)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    config.problem_type = problem
    classifier_of(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=KINDS.values(), ids=list(KINDS))
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, str]:
    """A model folder, its artefact, and its activation."""
    labels, problem, activation = request.param
    folder = folder_of(tmp_path_factory.mktemp("made") / "model", labels, problem)
    artefact = artefact_from_checkpoint(open_checkpoint(folder), folder.parent / "artefact")
    return folder, artefact.folder, activation


@pytest.fixture(scope="module")
def client(made: tuple[Path, Path, str]) -> Any:
    """A client of the artefact's server."""
    with client_of(open_served(made[1], threads=1)) as found:
        yield found


def of_pipeline(folder: Path) -> dict[str, float]:
    """What Transformers' pipeline answers, by label."""
    answers = pipeline("text-classification", model=str(folder), device="cpu")(TEXT, top_k=None)
    return {one["label"]: one["score"] for one in answers}


def test_scores_are_those_of_the_pipeline(made: tuple[Path, Path, str], client: TestClient) -> None:
    """Both protocols, and the Python API, give the pipeline's labels and scores."""
    expected = of_pipeline(made[0])

    tei = client.post("/predict", json={"inputs": TEXT}).json()
    native = client.post("/v1/classify", json={"inputs": [{"text": TEXT}]}).json()
    with spd.load(made[1], threads=1) as model:
        found = model.predict(TEXT)

    for answers in (tei, native["results"][0]["labels"]):
        assert {one["label"]: one["score"] for one in answers} == pytest.approx(expected, abs=1e-5)
    assert found.scores == pytest.approx(expected, abs=1e-5)


def test_raw_scores_are_logits(made: tuple[Path, Path, str], client: TestClient) -> None:
    """Whatever the activation, the logits can be had; a sigmoid of them gives the scores back."""
    body = {"inputs": TEXT}
    scores = client.post("/predict", json=body).json()
    raw = {
        one["label"]: one["score"]
        for one in client.post("/predict", json={**body, "raw_scores": True}).json()
    }

    if made[2] == "sigmoid":
        for one in scores:
            assert one["score"] == pytest.approx(1 / (1 + math.exp(-raw[one["label"]])))
    elif made[2] == "none":
        assert {one["label"]: one["score"] for one in scores} == raw
    else:
        best = scores[0]["label"]
        assert raw[best] == max(raw.values())


def test_info_names_the_activation(made: tuple[Path, Path, str], client: TestClient) -> None:
    """Who reads scores can learn what made them."""
    assert client.get("/info").json()["activation"] == made[2]


def test_a_pruned_cross_encoder_stays_one(tmp_path: Path) -> None:
    """Its configuration goes on naming no problem type, so Transformers applies a sigmoid."""
    from spd_train.model import classifier_config

    folder = folder_of(tmp_path / "model", ["LABEL_0"], None)
    task = open_checkpoint(folder).task

    config = classifier_config(str(folder), task)

    assert config.problem_type is None
    assert config.id2label == {0: "LABEL_0"}
    assert json.loads(json.dumps(task.to_json()))["sigmoid"] is True


def test_every_protocol_tells_the_nearest_of_ordered_labels(tmp_path: Path) -> None:
    """The number is the score, and the label is the one that it is rounded to, in the API too."""
    folder = folder_of(tmp_path / "model", ["score"], "regression")
    task = own_task(
        text_column="t", pair_column=None, label_column="y", labels=(), ordinal=("low", "high")
    )
    artefact = artefact_from_checkpoint(
        replace(open_checkpoint(folder), task=task), tmp_path / "artefact"
    ).folder
    number = of_pipeline(folder)["score"]
    label = "low" if number < 0.5 else "high"

    with client_of(open_served(artefact, threads=1)) as client:
        tei = client.post("/predict", json={"inputs": TEXT}).json()
        native = client.post("/v1/classify", json={"inputs": [{"text": TEXT}]}).json()["results"]
        body = {"instances": [TEXT]}
        kserve = client.post("/v1/models/artefact:predict", json=body).json()["predictions"]
        vllm = client.post("/classify", json={"input": [TEXT]}).json()["data"]
        info = client.get("/info").json()
    with spd.load(artefact, threads=1) as model:
        found = model.predict(TEXT)

    for answer in (tei[0], native[0]["labels"][0], kserve[0][0]):
        assert answer["label"] == label and answer["score"] == pytest.approx(number, abs=1e-5)
    assert native[0]["predicted"] == [label] and vllm[0]["label"] == label
    assert info["labels"] == ["low", "high"]
    assert found.label == label and found.to_json()["score"] == pytest.approx(number, abs=1e-5)
