"""Models as others store them: what is trained from them, and what is refused before training."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.checkpoint import WEIGHTS_FILE, open_checkpoint
from spd_deploy.domain.errors import BadModel
from spd_deploy.domain.patterns import NM
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.tasks import TASKS
from spd_train.config import TeacherRecipe
from spd_train.model import load_classifier
from spd_train.prune import PruneConfig, prune
from spd_train.prune_recipe import PruneRecipe
from spd_train.run import run
from tests.tiny import classifier_of, tiny_config, tiny_model
from tests.train.runs import DATA, QUICK, TASK, config_for, student_config

SHORT = replace(QUICK, teacher=TeacherRecipe(epochs=0.5), student=QUICK.student.lasting(0.5))


class Noting(Silent):
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def halved(folder: Path, number: torch.dtype) -> Path:
    """The model saved in half precision, in shards."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=number)
    (folder / WEIGHTS_FILE).unlink()
    model.save_pretrained(folder, max_shard_size="60KB")
    return folder


def configured(folder: Path, **fields: object) -> Path:
    """The folder with these fields in config.json."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))
    return folder


@pytest.mark.parametrize("number", [torch.float16, torch.bfloat16])
def test_half_precision_is_trained_and_exported_in_fp32(
    tmp_path: Path, number: torch.dtype
) -> None:
    """Teacher and student of a model in half precision, in shards, are fp32 and exported."""
    folder = halved(tiny_model(tmp_path / "m"), number)

    made = run(config_for(folder, tmp_path / "run", SHORT), Silent())

    for part in (made.folder, made.folder / "teacher"):
        assert {t.dtype for t in load_file(part / WEIGHTS_FILE).values()} == {torch.float32}
        assert json.loads((part / "config.json").read_text())["dtype"] == "float32"
    artefact = artefact_from_checkpoint(made, tmp_path / "a")
    assert artefact.manifest.parity.max_difference < 1e-5
    recipe = made.to_json()["parents"]
    assert recipe.keys() == {"teacher"}
    assert open_checkpoint(made.folder / "teacher").parents.keys() == {"pretrained"}


@pytest.mark.parametrize("names", ["legacy", "masked"])
def test_a_teacher_from_elsewhere_is_distilled(tmp_path: Path, names: str) -> None:
    """Norms named gamma and beta, and mask buffers beside the weights, hinder no distillation."""
    folder = tiny_model(tmp_path / "m", task=TASK)
    state = load_file(folder / WEIGHTS_FILE)
    if names == "legacy":
        state = {
            n.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): v
            for n, v in state.items()
        }
    else:
        mask = torch.ones(64, 64, dtype=torch.bool)
        state["bert.encoder.layer.0.attention.self.query.__weight_mma_mask"] = mask
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    told = Noting()

    made = run(student_config(folder, tmp_path / "run", SHORT), told)

    assert str(made.pattern) == "2:4" and not made.notes
    assert any("__weight_mma_mask" in note for note in told.notes) == (names == "masked")


def test_a_head_of_another_size_is_drawn_anew(tmp_path: Path) -> None:
    """A model of three labels is fine-tuned for two, and the new head is told."""
    folder = tiny_model(tmp_path / "m", task=TASKS["mnli"])
    told: list[str] = []

    state = load_classifier(str(folder), TASK, note=told.append).state_dict()

    assert state["classifier.weight"].shape == (2, 64)
    stored = load_file(folder / WEIGHTS_FILE)
    same = [name for name in stored if not name.startswith("classifier.")]
    assert all(torch.equal(state[name], stored[name]) for name in same)
    (note,) = told
    assert "a classifier of 3 outputs, the task needs 2" in note


def test_a_trained_head_of_another_size_is_one_line(tmp_path: Path) -> None:
    """A classifier that must have its head is refused with both sizes."""
    folder = tiny_model(tmp_path / "m", task=TASKS["mnli"])

    with pytest.raises(BadModel, match=r"classifier\.bias .* got \(3,\), expected \(2,\)"):
        load_classifier(str(folder), TASK, trained=True)


def test_a_table_of_another_size_is_one_line(tmp_path: Path) -> None:
    """An encoder whose config.json asks for other sizes is refused with both."""
    folder = configured(tiny_model(tmp_path / "m"), type_vocab_size=3)

    with pytest.raises(BadModel, match=r"token_type_emb.* got \(2, 64\), expected \(3, 64\)"):
        load_classifier(str(folder), TASK)


def foreign(folder: Path, kind: str) -> Path:
    """A model that could be trained, and could not be exported or served."""
    made = tiny_model(folder, task=TASK)
    match kind:
        case "mish":
            return configured(made, hidden_act="mish")
        case "labels":
            return configured(made, id2label={"a": "x", "b": "y"})
        case "no norm":
            return configured(made, layer_norm_type="no_norm")
        case "own code":
            return configured(made, auto_map={"AutoModel": "modeling.Mine"})
        case "longer tokenizer":
            tokenizer = AutoTokenizer.from_pretrained(made)
            tokenizer.add_tokens(["zuschlag"])
            tokenizer.save_pretrained(made)
        case "roc_bert":
            config = transformers.RoCBertConfig(
                vocab_size=100, num_hidden_layers=1, hidden_size=64, num_attention_heads=4,
                intermediate_size=128, pronunciation_vocab_size=9, shape_vocab_size=9,
            )  # fmt: skip
            classifier_of(config).save_pretrained(made)
        case "pickled":
            (made / WEIGHTS_FILE).rename(made / "pytorch_model.bin")
        case _:
            raise AssertionError(kind)
    return made


REFUSED = [
    ("mish", "hidden_act in config.json, cannot be exported; got 'mish'"),
    ("labels", "id2label in config.json has a key"),
    ("no norm", "norms are of another kind"),
    ("own code", "code of its own"),
    ("longer tokenizer", "'zuschlag' has id"),
    ("roc_bert", "named 'roc_bert'"),
    ("pickled", "got pytorch_model.bin"),
]


@pytest.mark.parametrize(("kind", "said"), REFUSED)
def test_what_cannot_be_exported_is_not_trained(tmp_path: Path, kind: str, said: str) -> None:
    """As a model, as a teacher and for pruning it is refused, and nothing is written."""
    folder = foreign(tmp_path / "m", kind)
    one_shot = PruneConfig(
        source=folder,
        texts=DATA.train,
        pattern=NM(n=2, m=4),
        recipe=PruneRecipe(importance="magnitude", calibration_tokens=64),
        output=tmp_path / "out",
    )

    with pytest.raises(BadModel, match=said):
        run(config_for(folder, tmp_path / "out"), Silent())
    with pytest.raises(BadModel, match=said):
        run(student_config(folder, tmp_path / "out", QUICK), Silent())
    with pytest.raises(BadModel, match=said):
        prune(one_shot, Silent())

    assert not (tmp_path / "out").exists()


def test_ids_in_training_are_auto_tokenizers(tmp_path: Path) -> None:
    """A model whose config keeps capitals is trained on capitals, and so is what comes of it."""
    folder = tiny_model(tmp_path / "m")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    kept = json.dumps(settings | {"do_lower_case": False})
    (folder / "tokenizer_config.json").write_text(kept)
    text = "The film was GOOD"
    expected = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    assert expected != AutoTokenizer.from_pretrained(folder)(text.lower())["input_ids"]

    made = run(config_for(folder, tmp_path / "run", replace(SHORT, pattern=None)), Silent())

    artefact = artefact_from_checkpoint(made, tmp_path / "a")
    assert list(artefact.tokenizer().encode(text).ids) == expected
    assert AutoTokenizer.from_pretrained(made.folder)(text)["input_ids"] == expected


def test_the_configuration_of_every_skeleton_is_checked() -> None:
    """A model on the hub, of which no file lies here, is refused by its configuration alone."""
    from spd_train.model import encoder_from_config

    config = tiny_config()
    config.layer_norm_type = "no_norm"

    with pytest.raises(BadModel, match="norms are of another kind"):
        encoder_from_config(config)
