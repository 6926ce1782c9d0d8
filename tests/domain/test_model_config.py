"""What config.json says, against AutoConfig on the same file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig
from transformers.activations import ACT2FN

from spd_deploy.domain.checkpoint import Checkpoint, encoder_in
from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.export_shapes import exportable_architecture
from spd_deploy.domain.model_config import (
    ACTIVATIONS,
    activation_of,
    epsilon_of,
    labels_of,
    task_from_config,
)
from spd_deploy.domain.tasks import ProblemType
from tests.tiny import tiny_model

LABELS: list[dict[str, Any]] = [
    {},
    {"num_labels": 3},
    {"num_labels": 1},
    {"id2label": None, "num_labels": 4},
    {"id2label": {"0": "no", "1": "yes"}},
    {"id2label": {"1": "yes", "0": "no"}},
    {"id2label": {"0": 1, "1": 2.5}},
    {"id2label": {"0": True, "1": False}},
    {"id2label": {"0": "a", "01": "b"}},
    {"id2label": {"0": "a", "1": "a"}},
    {"id2label": {"0": "a", "1": "b", "2": "c"}, "num_labels": 2},
    {"id2label": {"0": "a", "1": "b"}, "num_labels": 3},
    {"label2id": {"no": 0, "yes": 1}},
]


@pytest.mark.parametrize("config", LABELS, ids=str)
def test_labels_are_those_of_transformers(tmp_path: Path, config: dict[str, Any]) -> None:
    """With id2label, num_labels, both, neither, or labels that are numbers."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **config}))
    expected = AutoConfig.from_pretrained(tmp_path).id2label

    assert labels_of(config) == tuple(str(expected[i]) for i in range(len(expected)))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"id2label": {"a": "x"}}, "key that is not an output's number"),
        ({"id2label": ["x", "y"]}, "does not map"),
        ({"id2label": "xy"}, "does not map"),
        ({"id2label": {}}, "does not map"),
        ({"id2label": {"1": "x", "2": "y"}}, "does not number the outputs"),
        ({"id2label": {"0": "x", "00": "y"}}, "does not number the outputs"),
        ({"id2label": {"0": None, "1": "y"}}, "neither text nor a number"),
        ({"id2label": {"0": ["x"], "1": "y"}}, "neither text nor a number"),
        ({"id2label": {"0": "x", "1": "x"}}, "gives two outputs one name"),
        ({"num_labels": "3"}, "num_labels"),
        ({"num_labels": 0}, "num_labels"),
        ({"num_labels": True}, "num_labels"),
        ({"problem_type": "ranking"}, "unknown problem_type; got 'ranking'; set it to single"),
        ({"problem_type": ["regression"]}, "unknown problem_type"),
        ({"problem_type": "regression", "num_labels": 3}, "several numbers"),
        ({"problem_type": "single_label_classification", "num_labels": 1}, "one label"),
    ],
    ids=str,
)
def test_labels_that_are_none_are_one_line(config: dict[str, Any], said: str) -> None:
    """What no output can be named by is refused in a sentence that names the field."""
    with pytest.raises(BadModel, match=said):
        task_from_config(config)


@pytest.mark.parametrize(
    ("config", "kind", "outputs"),
    [
        ({}, ProblemType.SINGLE_LABEL, 2),
        ({"problem_type": None}, ProblemType.SINGLE_LABEL, 2),
        ({"problem_type": ""}, ProblemType.SINGLE_LABEL, 2),
        ({"num_labels": 1}, ProblemType.REGRESSION, 1),
        ({"num_labels": 1, "problem_type": "multi_label_classification"}, "multi_label", 1),
        ({"num_labels": 3, "problem_type": "multi_label_classification"}, "multi_label", 3),
    ],
    ids=str,
)
def test_the_kind_of_answer_is_read(config: dict[str, Any], kind: str, outputs: int) -> None:
    """Problem type and number of outputs are what config.json says, or its silence."""
    task = task_from_config(config)

    assert task.problem_type.startswith(kind)
    assert task.outputs == outputs


def test_activations_are_those_of_transformers(dense_checkpoint: Checkpoint) -> None:
    """Names of one activation give the same numbers there, and other names are refused."""
    x = torch.linspace(-6, 6, 1001)
    for name, canonical in ACTIVATIONS.items():
        theirs = ACT2FN[{"gelu_tanh": "gelu_new"}.get(canonical, canonical)]
        torch.testing.assert_close(ACT2FN[name](x), theirs(x), rtol=0, atol=1e-6)
    for name in (*(set(ACT2FN) - set(ACTIVATIONS)), "nonsense", None, 3, ["gelu"]):
        with pytest.raises(BadModel, match=r"hidden_act in config.json, cannot be exported"):
            exportable_architecture(dense_checkpoint.encoder, {"hidden_act": name})


def test_distilbert_reads_fields_of_its_own(tmp_path: Path) -> None:
    """Its activation has another name, and its norms have one epsilon whatever is said."""
    bert = encoder_in(tiny_model(tmp_path / "b"))
    distilbert = encoder_in(tiny_model(tmp_path / "d", architecture="distilbert"))
    config = {"hidden_act": "relu", "activation": "gelu_new", "layer_norm_eps": 1e-3}

    assert (activation_of(bert, config), epsilon_of(bert, config)) == ("relu", 1e-3)
    assert activation_of(distilbert, config) == "gelu_tanh"
    assert epsilon_of(distilbert, config) == 1e-12


@pytest.mark.parametrize("epsilon", ["1e-12", 0, -1.0, True, None])
def test_an_epsilon_that_is_none_is_refused(dense_checkpoint: Checkpoint, epsilon: object) -> None:
    """Norms add a positive number to the variance."""
    with pytest.raises(BadModel, match="layer_norm_eps"):
        epsilon_of(dense_checkpoint.encoder, {"layer_norm_eps": epsilon})
