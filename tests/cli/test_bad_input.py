"""Bad input on the command line: one clear line, an exit code, and nothing half-written."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.files import write_json
from spd_deploy.domain.folders import RUN_FILE
from spd_deploy.domain.patterns import NM
from spd_deploy.domain.tasks import TASKS
from spd_train.recipes import recipe_named
from tests.cli.running import run_in
from tests.cli.user_folder import mrpc_files
from tests.tiny import tiny_checkpoint, tiny_model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good inputs, and a broken copy of each."""
    place = tmp_path_factory.mktemp("bad")
    mrpc_files(place / "MRPC")
    tiny_model(place / "model", task=TASKS["mrpc"])
    checkpoint = tiny_checkpoint(place / "checkpoint", task="mrpc")
    artefact = artefact_from_checkpoint(checkpoint, place / "artefact")
    damaged = Path(shutil.copytree(artefact.folder, place / "damaged"))
    content = bytearray((damaged / "weights.bin").read_bytes())
    content[100] ^= 1
    (damaged / "weights.bin").write_bytes(content)
    unlisted = Path(shutil.copytree(artefact.folder, place / "unlisted"))
    (unlisted / "manifest.json").unlink()
    headless = Path(shutil.copytree(place / "model", place / "headless"))
    weights = load_file(headless / "model.safetensors")
    encoder = {name: value for name, value in weights.items() if name.startswith("bert.")}
    save_file(encoder, headless / "model.safetensors", metadata={"format": "pt"})
    other = Path(shutil.copytree(place / "model", place / "albert"))
    config = (other / "config.json").read_text()
    (other / "config.json").write_text(config.replace('"bert"', '"albert"'))
    pickled = Path(shutil.copytree(place / "model", place / "pickled"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    labels = Path(shutil.copytree(place / "MRPC", place / "labels"))
    text = (labels / "train.tsv").read_text().split("\n")
    text[3] = "7" + text[3][1:]
    (labels / "train.tsv").write_text("\n".join(text))
    hole = Path(shutil.copytree(place / "MRPC", place / "hole"))
    (hole / "dev.tsv").write_text((hole / "dev.tsv").read_text() + "\n1\t1\t1\t\tb\n")
    (place / "empty.jsonl").write_text('{"text": " ", "text_pair": "b"}\n')
    (place / "own.csv").write_text("words,y\na,1\nb,0\n")
    (place / "pairs.jsonl").write_text('{"text": "a", "text_pair": "b"}\n{"text": "c"}\n')
    tiny_checkpoint(place / "opinions", task="sst2")
    tiny_checkpoint(place / "number", task="stsb")
    turned = tiny_checkpoint(place / "reversed", task="mrpc").folder
    (turned / "spd.json").unlink()
    names = (turned / "config.json").read_text().replace("not_equivalent", "no")
    names = names.replace('"equivalent"', '"not_equivalent"').replace('"no"', '"equivalent"')
    (turned / "config.json").write_text(names)
    words = tiny_checkpoint(place / "words", task="mrpc").folder / "tokenizer.json"
    words.write_text(words.read_text().replace('"plot"', '"zebra"'))
    recipe = replace(recipe_named("prune"), pattern=NM(n=2, m=4)).to_json()
    write_json(place / "begun" / RUN_FILE, {"task": "mrpc", "recipe": recipe})
    write_json(place / "unknown.json", {"recipe": {**recipe, "sparkle": 1}})
    lacking = {name: value for name, value in recipe.items() if name != "holdout"}
    write_json(place / "lacking.json", {"recipe": lacking})
    write_json(place / "texted.json", {"recipe": {**recipe, "batch_size": "many"}})
    (place / "taken").mkdir()
    (place / "taken" / "thesis").write_text("mine")
    return place


TRAIN = "train --task mrpc --data MRPC --model model --pattern 2:4 --output out"

CASES = [
    ("train --task mrpc --data nowhere --model model --pattern 2:4 --output out", "nowhere"),
    ("train --task mrcp --data MRPC --model model --pattern 2:4 --output out", "unknown task"),
    ("train --task mrpc --data labels --model model --pattern 2:4 --output out", "line 4"),
    (
        "train --data own.csv --text-column text --label-column y --model model "
        "--pattern 2:4 --output out",
        "no column 'text'",
    ),
    (
        "train --task mrpc --data MRPC --model albert --pattern 2:4 --output out",
        "share one set",
    ),
    ("train --task mrpc --data MRPC --model pickled --pattern 2:4 --output out", "safetensors"),
    ("train --task mrpc --data MRPC --model ./no --pattern 2:4 --output out", "no such model"),
    ("train --task mrpc --data MRPC --model model --pattern 3:5 --output out", "divides"),
    (
        "train --task mrpc --data MRPC --model model --pattern block:24x1 --output out",
        "does not divide",
    ),
    ("train --task mrpc --data MRPC --model model --pattern 4:2 --output out", "N:M"),
    ("train --task mrpc --data MRPC --model model --pattern dense --output out", "pattern"),
    (f"{TRAIN} --sparsity 0.7", "always has sparsity 0.5"),
    (TRAIN.replace("2:4", "unstructured") + " --sparsity 1.5", "between 0 and 1"),
    (TRAIN.replace("2:4", "unstructured") + " --sparsity nan", "between 0 and 1"),
    (f"{TRAIN} --prune-epochs 0", "--prune-epochs"),
    (f"{TRAIN} --batch-size 0", "--batch-size"),
    (TRAIN.replace("--output out", "--output taken"), "already exists"),
    (f"{TRAIN} --resume", "no run to resume"),
    (TRAIN.replace("output out", "output begun") + " --resume", "another recipe.name"),
    (f"{TRAIN} --teacher opinions", "another task; got sst2, this is mrpc"),
    (f"{TRAIN} --teacher number", "another task; got stsb, this is mrpc"),
    (f"{TRAIN} --teacher reversed", "got 2 labels, equivalent, not_equivalent"),
    ("evaluate reversed --task mrpc --data MRPC", "got 2 labels, equivalent, not_equivalent"),
    (f"{TRAIN} --teacher words", "another tokenizer"),
    (f"{TRAIN} --recipe sdp", "no such recipe; got sdp"),
    (f"{TRAIN} --recipe nowhere.json", "no such recipe"),
    (f"{TRAIN} --recipe own.csv", "own.csv"),
    (f"{TRAIN} --recipe unknown.json", "unknown field; got sparkle"),
    (f"{TRAIN} --recipe lacking.json", "lacks a field; got holdout"),
    (f"{TRAIN} --recipe texted.json", "batch_size"),
    (f"{TRAIN} --max-steps 3", "--max-steps 3"),
    (f"{TRAIN} --max-steps 0", "--max-steps must be at least 1"),
    (f"{TRAIN} --exclude quary", "no matrix has such a name; got --exclude quary"),
    (f"{TRAIN} --exclude layer", "all matrices are excluded"),
    (TRAIN.replace("2:4", "structured") + " --exclude query", "together or not at all"),
    (f"{TRAIN} --allocation global", "no allocation can spread"),
    (
        TRAIN.replace("2:4", "unstructured") + " --sparsity 0.99 --allocation global",
        "out of reach; got --sparsity 0.99 with --allocation global",
    ),
    (
        f"{TRAIN} --importance taylor --mask-updates 1",
        "got --importance taylor with --mask-updates 1",
    ),
    (f"{TRAIN} --label-weight 1", "no labels to learn; got --label-weight 1 with --mix-pairs"),
    (f"{TRAIN} --mix-pairs 1.5", "--mix-pairs must lie in [0, 1]"),
    (f"{TRAIN} --seed -1", "--seed must be 0 or more"),
    (f"{TRAIN} --epochs inf", "--epochs must be above 0"),
    (f"{TRAIN} --teacher-epochs inf", "--teacher-epochs must be above 0"),
    (f"{TRAIN} --holdout 1", "--holdout"),
    (f"{TRAIN} --epochs 0", "--epochs"),
    (f"{TRAIN} --graft-start nan", "--graft-start"),
    (f"{TRAIN} --logits-weight -1", "weights of losses"),
    ("train --task mrpc --data MRPC --pattern 2:4 --output out", "--model"),
    ("export nowhere --output out", "no such folder"),
    ("export artefact --output out", "is an exported artefact already"),
    ("export unlisted --output out", "its manifest.json is missing"),
    ("predict unlisted one two", "its manifest.json is missing"),
    ("predict headless one two", "headless lack 2 tensors; got classifier.bias"),
    ("evaluate headless --task mrpc --data MRPC", "use a fine-tuned classifier"),
    ("build nowhere", "no such artefact folder; got nowhere"),
    ("build artefact", "artefact is not a trt artefact"),
    (
        "predict artefact one two --runtime tensorrt",
        "tensorrt does not run an artefact of format onnx",
    ),
    ("export checkpoint --precision int8 --task cola --data MRPC --output out", "mrpc"),
    (
        "export model --precision int8 --data own.csv --output out",
        "name the --task it was trained for",
    ),
    ("export checkpoint --output taken", "already exists"),
    ("export checkpoint --output taken --overwrite", "not an artefact"),
    ("inspect nowhere", "no such folder; got nowhere"),
    ("inspect unlisted", "its manifest.json is missing"),
    ("bench artefact --seq 16 --baseline nowhere --output out", "no such folder; got nowhere"),
    ("inspect damaged", "weights.bin was changed"),
    ("evaluate damaged --data MRPC", "weights.bin was changed"),
    ("evaluate artefact --task sst2 --data MRPC", "another task"),
    ("evaluate artefact --data MRPC --split test", "no labels"),
    ("evaluate artefact --data MRPC --split holdout", "no such split"),
    ("evaluate model --data MRPC", "name the --task it was trained for"),
    ("prune model --data own.csv --pattern 2:4 --output out", "name a --task"),
    ("predict artefact --input pairs.jsonl --output out", "pairs.jsonl, line 2"),
    ("predict artefact --input pairs.jsonl", "check --text-column and --pair-column"),
    ("predict artefact --input nowhere.jsonl --output out", "cannot read"),
    ("predict artefact one", "in pairs"),
    ("predict artefact one \u200b", "text 1 of 1 is empty"),
    ("predict artefact one two --output taken/thesis", "already exists"),
    ("predict damaged one two", "weights.bin was changed"),
    ("quickstart --output taken --overwrite", "not an earlier quickstart"),
    ("quickstart --output taken/thesis --overwrite", "got a file"),
]


@pytest.mark.parametrize(("command", "said"), CASES, ids=[command for command, _ in CASES])
def test_bad_input_is_one_clear_line(place: Path, command: str, said: str) -> None:
    """What, got and what to do on one line of standard error, exit code 1, and no output."""
    result = run_in(place, command)

    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("spd: ")]
    assert len(lines) == 1 and said in lines[0]
    assert "; " in lines[0]
    assert "Traceback" not in result.output
    assert not (place / "out").exists()
    assert (place / "taken" / "thesis").read_text() == "mine"


def test_the_hub_is_not_asked_without_its_package(place: Path) -> None:
    """Without --data and the package datasets, the error names both remedies, files first."""
    import importlib.util

    if importlib.util.find_spec("datasets"):
        pytest.skip("the package datasets is installed")
    result = run_in(place, TRAIN.replace("--data MRPC ", ""))

    assert result.exit_code == 1
    assert "name a folder with --data, or pip install 'spd-deploy[data]'" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        "tarin",
        "train --task mrpc",
        "train --data MRPC --model model --pattern 2:4 --output out",
        "train --text-column a --model model --pattern 2:4 --output out",
        "train --task mrpc --data MRPC --model model --teacher checkpoint --output out",
        "train --task mrpc --data MRPC --model model --recipe prune --output out",
        "train --task mrpc --data MRPC --model model --epochs 3 --output out",
        "export checkpoint",
        "export checkpoint --format coreml --output out",
        "export checkpoint --format trt --tune --output out",
        "export checkpoint --format trt --runtime openvino --output out",
        "export checkpoint --runtime tensorrt --output out",
        "export checkpoint --no-build --output out",
        "build artefact --workspace-gib 0",
        "predict artefact",
        "predict artefact one --input pairs.jsonl",
        "serve artefact --port many",
        "bench artefact --batch none --output out",
    ],
)
def test_a_wrong_command_line_exits_with_two(place: Path, command: str) -> None:
    """Usage errors keep their own exit code and show the usage."""
    result = run_in(place, command)

    assert result.exit_code == 2
    assert "Usage:" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        "predict checkpoint --input empty.jsonl",
        "prune checkpoint --texts empty.jsonl --pattern 2:4 --output out",
        "prune checkpoint --data labels --pattern 2:4 --output out",
        "evaluate checkpoint --data hole",
    ],
)
def test_a_broken_row_may_be_skipped(place: Path, command: str) -> None:
    """The error for a broken row names --skip-broken-rows, which every verb that reads rows has."""
    result = run_in(place, command)

    assert result.exit_code == 1, result.output
    assert ", line " in result.stderr
    assert "--skip-broken-rows" in result.stderr


def test_texts_and_a_file_of_them_are_one_too_many(place: Path) -> None:
    """Where both are given the error says so, and to leave one out."""
    result = run_in(place, "predict artefact one two --input pairs.jsonl")

    assert "both texts and --input are given; leave one out" in result.stderr


def test_a_diverged_training_is_one_clear_line(place: Path) -> None:
    """The step and the rows of its batch are named, and no checkpoint is left."""
    result = run_in(place, f"{TRAIN} --teacher-epochs 2 --teacher-learning-rate 1e30")
    shutil.rmtree(place / "out", ignore_errors=True)

    assert result.exit_code == 1, result.output
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("spd: "))
    assert "diverged" in line and "at step" in line and "rows" in line
    assert "Traceback" not in result.output
