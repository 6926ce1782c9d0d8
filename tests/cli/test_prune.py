"""``spd prune`` as a user types it: what becomes of its options, and what it refuses."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.running import run_in
from tests.cli.user_folder import mrpc_files
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, texts for it, a single text, and an output that holds someone's work."""
    place = tmp_path_factory.mktemp("prune")
    tiny_checkpoint(place / "checkpoint", task="mrpc")
    mrpc_files(place / "MRPC")
    (place / "one.jsonl").write_text('{"text": "a", "text_pair": "b"}\n')
    (place / "taken").mkdir()
    (place / "taken" / "thesis").write_text("mine")
    return place


PRUNE = "prune checkpoint --pattern unstructured --data MRPC --output out"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            PRUNE.replace("--data MRPC", "--texts one.jsonl"),
            "there are too few texts; got 1; give a hundred or more",
        ),
        *(
            (
                f"{PRUNE} --importance {importance}",
                "this importance needs gradients, and so labels and training; "
                f"got --importance {importance}; "
                "use magnitude, activation or second-order here, or spd train",
            )
            for importance in ("movement", "taylor")
        ),
        (
            PRUNE.replace("output out", "output taken"),
            "taken already exists; choose another --output, or replace it with --overwrite",
        ),
        (
            f"{PRUNE} --exclude quary",
            "no matrix has such a name; got --exclude quary; see spd inspect",
        ),
        (
            f"{PRUNE.replace('unstructured', '2:4')} --allocation global",
            "2:4 has a fixed sparsity, which no allocation can spread; got --allocation global; "
            "use --allocation uniform, or another pattern",
        ),
        (
            f"{PRUNE} --sparsity 1.5",
            "sparsity must lie strictly between 0 and 1; got 1.5; "
            "for example --sparsity 0.75 for three zeros in four",
        ),
        (
            PRUNE.replace("unstructured", "block:24x1"),
            "block:24x1 does not divide the matrix; got 64x64 (outputs x inputs); "
            "choose R dividing 64 and C dividing 64",
        ),
    ],
)
def test_what_cannot_be_pruned_is_one_line(place: Path, command: str, said: str) -> None:
    """What is wrong, what was got and what to do stand on the one line; nothing is written."""
    result = run_in(place, command)

    assert result.exit_code == 1
    assert [x for x in result.stderr.splitlines() if x.startswith("spd: ")] == [f"spd: {said}"]
    assert result.stdout == ""
    assert not (place / "out").exists()
    assert [file.name for file in (place / "taken").iterdir()] == ["thesis"]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ("", "name a file with --texts, or the model's data with --data"),
        (
            "--texts one.jsonl --data MRPC",
            "both --texts and --data are given; leave one out",
        ),
    ],
)
def test_texts_come_from_one_place(place: Path, texts: str, said: str) -> None:
    """Neither a file nor a folder, or both, is a usage error that says which of the two it is."""
    result = run_in(place, PRUNE.replace("--data MRPC", texts))

    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.parametrize("option", ["--mask-updates", "--calibration-tokens"])
def test_a_number_below_one_is_a_usage_error_of_its_option(place: Path, option: str) -> None:
    """The option is named, and the help that is pointed to is the verb's own."""
    result = run_in(place, f"{PRUNE} {option} 0")

    assert result.exit_code == 2
    assert option in result.stderr and "prune --help" in result.stderr


def test_the_sparse_model_is_scored_where_dev_has_labels(place: Path, tmp_path: Path) -> None:
    """Its own score on dev is the one that evaluate gives, and stands beside the dense model's."""
    command = f"{PRUNE} --mask-updates 1".replace("output out", f"output {tmp_path / 'out'}")

    shown = run_in(place, command)

    assert shown.exit_code == 0, shown.output
    assert re.search(r"agrees with the dense model on \d+ % of \d+ texts", shown.stdout)
    value = json.loads((tmp_path / "out" / "spd.json").read_text())
    for arm, path in (("sparse", tmp_path / "out"), ("dense", place / "checkpoint")):
        told = run_in(place, f"evaluate {path} --data MRPC --json")
        assert value["scores"][arm] == pytest.approx(json.loads(told.stdout)["scores"])
    assert value["split"] == "dev"
    assert "this model: " in run_in(place, f"inspect {tmp_path / 'out'}").stdout


def test_a_model_without_a_score_of_its_own_says_so(place: Path, tmp_path: Path) -> None:
    """Pruned on texts alone, inspect names the score that is known as the dense model's."""
    texts = "".join('{"text": "the film", "text_pair": "it was good"}\n' for _ in range(20))
    (tmp_path / "texts.jsonl").write_text(texts)
    command = f"{PRUNE} --mask-updates 1".replace("output out", f"output {tmp_path / 'out'}")

    run_in(place, command.replace("--data MRPC", f"--texts {tmp_path / 'texts.jsonl'}"))
    shown = run_in(place, f"inspect {tmp_path / 'out'}").stdout

    assert re.search(r"dense model it was made from: \w+ 0\.9000", shown)
    assert "this model: not scored; spd evaluate shows what it scores" in shown


def test_the_options_are_the_recipe_of_the_checkpoint(place: Path, tmp_path: Path) -> None:
    """What was typed stands in the checkpoint's recipe; the masks may regrow between rounds."""
    command = (
        f"{PRUNE} --importance activation --mask-updates 2 --no-reconstruct --no-permute "
        "--allocation global --exclude query --calibration-tokens 64 --sparsity 0.5 "
        "--precision fp32 --json"
    )

    result = run_in(place, command.replace("output out", f"output {tmp_path / 'out'}"))

    assert result.exit_code == 0, result.output
    recipe = json.loads(result.stdout)["recipe"]
    assert (recipe["pattern"], recipe["sparsity"]) == ("unstructured", 0.5)
    assert recipe["pruning"] == {
        "importance": "activation",
        "updates": 2,
        "regrow": True,
        "reconstruct": False,
        "permute": False,
        "allocation": "global",
        "least_density": 0.02,
        "keep_layers": None,
        "exclude": ["query"],
        "calibration_tokens": 64,
    }


def test_threads_and_broken_rows_are_as_in_train(place: Path, tmp_path: Path) -> None:
    """A text without a token stops the pruning, or is skipped and counted; threads are chosen."""
    good = '{"text": "the film", "text_pair": "it was good"}\n' * 20
    (tmp_path / "texts.jsonl").write_text(good + '{"text": "a", "text_pair": "\\u200b"}\n')
    command = PRUNE.replace("--data MRPC", f"--texts {tmp_path / 'texts.jsonl'} --threads 1")
    command = f"{command} --mask-updates 1".replace("output out", f"output {tmp_path / 'out'}")

    refused = run_in(place, command)
    pruned = run_in(place, f"{command} --skip-broken-rows")

    assert refused.exit_code == 1
    assert "line 21: empty text: the tokenizer drops all its characters" in refused.stderr
    assert pruned.exit_code == 0, pruned.output
    assert "skipped 1 broken row: empty text" in pruned.stderr
