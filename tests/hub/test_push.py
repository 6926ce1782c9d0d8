"""A model and its card, pushed by the hub's real client."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import ModelCard

import spd_deploy as spd
from spd_deploy.benchmark.report import text_from_report
from spd_deploy.cli.main import cli
from spd_deploy.domain.artefact import Artefact, open_artefact
from spd_deploy.domain.calibration_error import CalibrationError
from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint, save_description
from spd_deploy.domain.errors import (
    BadCheckpoint,
    BadReport,
    BadSetting,
    OptionConflict,
    SpdError,
    Unavailable,
)
from spd_deploy.domain.origin import Origin
from spd_deploy.domain.temperature import TemperatureScaling
from spd_deploy.hub.fetch import fetch_model
from spd_deploy.hub.intervals import interval_of
from tests.benchmark.made import ARM, drawn, gathered, made_report
from tests.hub.stand_in import Hub, use_hub

# 2026-12: huggingface_hub hands files to its transport by an argument that this calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

ERRORS = CalibrationError(expected=0.12, brier=0.3, confidence=0.9)
BETTER = CalibrationError(expected=0.03, brier=0.25, confidence=0.8)


@pytest.fixture
def folder(artefact: Artefact, tmp_path: Path) -> Path:
    """A copy of the artefact, for a card of its own."""
    return Path(shutil.copytree(artefact.folder, tmp_path / "pairs"))


@pytest.fixture
def checkpoint(block_checkpoint: Checkpoint, tmp_path: Path) -> Checkpoint:
    """A copy of the checkpoint, with what a training from the hub records."""
    place = Path(shutil.copytree(block_checkpoint.folder, tmp_path / "run"))
    (place / "run.json").write_text('{"command": {"data_dir": "/home/me"}}')
    calibration = TemperatureScaling(
        temperature=1.7, rows=100, split="validation rows", before=ERRORS, after=BETTER
    )
    known = replace(
        block_checkpoint,
        folder=place,
        scores={"dense": {"accuracy": 0.9, "f1": 0.95}, "sparse": {"accuracy": 0.875, "f1": None}},
        scored_rows=400,
        calibration={"sparse": calibration},
        recipe={"name": "spd", "student": {"epochs": 3.0, "seed": None}},
        origins={
            "pretrained": Origin(
                address="hf://us/encoder", revision="main", commit="abc", license="mit"
            )
        },
    )
    save_description(known)
    return known


def test_a_pushed_artefact_is_read_back_by_its_address(
    hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit has the model's files and the card; a second push is a second commit."""
    use_hub(monkeypatch, hub.url, tmp_path)
    (folder / "notes.txt").write_text("private")

    pushed = spd.push(folder, "us/pairs", message="First", license="mit")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\nEdited.\n")
    again = spd.push(folder, "us/pairs", revision="v1", message="Second")
    fetched = fetch_model("hf://us/pairs@v1")

    assert pushed.pushed is not None and again.pushed is not None
    files = hub.repositories["us/pairs"].commits[pushed.pushed.commit]
    assert set(files) - {".gitattributes"} == set(pushed.files)
    assert {"manifest.json", "README.md"} < set(files) and "notes.txt" not in files
    assert hub.messages == ["First", "Second"]
    assert fetched.origin == Origin(
        address="hf://us/pairs", revision="v1", commit=again.pushed.commit, license="apache-2.0"
    )
    assert open_artefact(fetched.folder).manifest == open_artefact(folder).manifest


def test_a_card_says_what_the_records_hold(checkpoint: Checkpoint) -> None:
    """The hub's own reader finds the metadata; numbers are those of the records, nothing else."""
    found = spd.push(checkpoint.folder, "us/pairs", card_only=True)

    card = ModelCard.load(found.card)
    data = card.data.to_dict()
    assert (data["license"], data["base_model"]) == ("mit", "us/encoder")
    assert (data["pipeline_tag"], data["library_name"]) == ("text-classification", "transformers")
    assert {"spd", "sparse", "block:16x1"} <= set(data["tags"])
    (result,) = data["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.875, "name": "accuracy"}]
    assert result["dataset"]["config"] == "mrpc"
    low, high = interval_of("accuracy", 0.875, 400) or (0, 0)
    for line in (
        f"| this model | accuracy | 0.8750 | {low:.4f} to {high:.4f} |",
        "| this model | f1 | undefined | - |",
        "| dense model it was made from | f1 | 0.9500 | - |",
        "Measured on dev, 400 rows.",
        "| sparse | 1.700 | 0.1200 to 0.0300 | 0.3000 to 0.2500 | validation rows |",
        "| student.epochs | 3 |",
        "The pretrained encoder was read from `hf://us/encoder` at commit `abc`.",
        "Not measured here. `spd bench` measures it",
        "The temperature was fitted on 100 rows; it is in the weights.",
        f"SHA-256 of the weights: `{checkpoint.weights_sha256}`.",
    ):
        assert line in card.text, line
    assert "seed" not in card.text.split("## Accuracy")[0] and "/home" not in card.content
    assert not {"run.json", "log.jsonl"} & set(found.files)


def test_the_card_of_an_export_has_what_the_checkpoint_knew(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Recipe, origins, rows and calibration are in the manifest."""
    exported = spd.export(checkpoint.folder, output=tmp_path / "artefact")

    text = spd.push(exported, "us/fast", card_only=True).card.read_text()

    for part in ("an ONNX artefact", "base_model: us/encoder", "| student.epochs | 3 |"):
        assert part in text
    assert "400 rows" in text and "allowed." in text and "1.700" in text


def test_several_seeds_give_the_interval_of_the_training(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """The mean over seeds is in the card of each of them, and of no other folder."""
    summary = {"mean": 0.88, "low": 0.86, "high": 0.9, "values": [0.87, 0.89]}
    seeds = {"runs": {"0": "run"}, "scores": {"sparse": {"accuracy": summary, "f1": None}}}
    (tmp_path / "seeds.json").write_text(json.dumps(seeds))

    text = spd.push(checkpoint.folder, "us/pairs", card_only=True).card.read_text()

    assert "| sparse | accuracy | 0.8800 | 0.8600 to 0.9000 | 2 |" in text


def test_speed_is_that_of_a_report_of_this_artefact(folder: Path, tmp_path: Path) -> None:
    """The rows of its arm are shown with machine and command; another model's are refused."""
    hashes = open_artefact(folder).manifest.files
    mine = replace(
        gathered(), models={name: hashes[name] for name in ("model.onnx", "weights.bin")}
    )
    samples = {"dense": drawn(0.010, seed=1), "block": drawn(0.005, seed=2)}
    for name, arms in (("report", (ARM, mine)), ("other", (ARM, gathered()))):
        text = text_from_report(made_report(samples, arms=arms), {})
        (tmp_path / f"{name}.json").write_text(text)

    card = spd.push(
        folder, "us/pairs", report=tmp_path / "report.json", card_only=True
    ).card.read_text()

    (row,) = [line for line in card.splitlines() if line.startswith("| 8x32 |")]
    assert "| onnxruntime | 5." in row and "faster | dense |" in row
    assert "Measured on Test CPU, 4 usable cores" in card and "on 2026-01-02." in card
    assert "`spd bench ARTEFACT --baseline DENSE --batch 8 --seq 32 --rounds 6" in card
    with pytest.raises(BadReport, match="measured other models than"):
        spd.push(folder, "a/b", report=tmp_path / "other.json", card_only=True, overwrite=True)


def test_a_card_that_was_edited_is_kept(folder: Path) -> None:
    """It is written anew only if that is asked for."""
    (folder / "README.md").write_text("mine")

    kept = spd.push(folder, "us/pairs", card_only=True)
    with pytest.raises(OptionConflict, match="is pushed as it is; got --license"):
        spd.push(folder, "us/pairs", card_only=True, license="mit")

    assert kept.card.read_text() == "mine" and "taken as it is" in kept.notes[0]
    anew = spd.push(folder, "us/pairs", card_only=True, license="mit", overwrite=True)
    assert "license: mit" in anew.card.read_text()


def test_the_command_shows_the_card_or_the_commit(
    hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with the command that serves what was pushed, from a private repository here."""
    use_hub(monkeypatch, hub.url, tmp_path)

    shown = CliRunner().invoke(cli, ["push", str(folder), "us/pairs", "--card-only"])
    words = ["push", str(folder), "us/pairs", "--private"]
    pushed = CliRunner().invoke(cli, words)
    as_json = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)

    assert shown.stdout == (folder / "README.md").read_text()
    assert hub.repositories["us/pairs"].private
    assert pushed.stdout.endswith("next    spd serve hf://us/pairs\n")
    assert as_json["commit"] == hub.repositories["us/pairs"].revisions["main"]


def test_what_cannot_be_pushed_is_a_line(
    hub: Hub, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to do, and the hub has no commit."""
    use_hub(monkeypatch, hub.url, tmp_path)
    spd.push(folder, "us/public")
    before = dict(hub.repositories["us/public"].revisions)
    (tmp_path / "empty").mkdir()
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "distil.json").write_text("{}")
    (tmp_path / "encoder" / "config.json").write_text("{}")

    def refused(kind: type[SpdError], *words: object, **options: object) -> str:
        with pytest.raises(kind) as err:
            spd.push(*words, **options)  # type: ignore[arg-type]
        assert "\n" not in str(err.value)
        return str(err.value)

    assert "write OWNER/NAME" in refused(BadSetting, folder, "a/b/c")
    assert "--revision" in refused(BadSetting, folder, "us/public@v1")
    assert "holds no model" in refused(BadCheckpoint, tmp_path / "empty", "us/x")
    assert "without a head" in refused(BadCheckpoint, tmp_path / "encoder", "us/x")
    assert "is public; got --private" in refused(BadSetting, folder, "us/public", private=True)
    for status, part, reason in (
        (403, "repos/create", "use a token that may write"),
        (409, "commit", "somebody else pushed in between"),
        (413, "objects/batch", "the hub takes no file that large"),
    ):
        hub.refuse = {part: status}
        assert reason in refused(Unavailable, folder, "us/other")
        hub.refuse = {}
    use_hub(monkeypatch, hub.url, tmp_path, token="hf_wrong")
    assert "the token is not valid" in refused(Unavailable, folder, "us/public")
    use_hub(monkeypatch, hub.url, tmp_path, token=None)
    assert "hf auth login" in refused(Unavailable, folder, "us/public")
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path)
    assert "does not answer" in refused(Unavailable, folder, "us/public")
    assert hub.repositories["us/public"].revisions == before


def test_a_checkpoint_from_elsewhere_is_pushed_too(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Without spd.json the card says what is not recorded."""
    for name in ("spd.json", "run.json"):
        (checkpoint.folder / name).unlink()
    assert open_checkpoint(checkpoint.folder).detected

    text = spd.push(checkpoint.folder, "us/pairs", card_only=True).card.read_text()

    for part in ("How it was trained is not recorded.", "Not measured.", "found in its zeros"):
        assert part in text
    assert "license" not in text and "model-index" not in text


def test_intervals_are_those_of_scipy() -> None:
    """Wilson's for a share, Fisher's for a correlation; F1 has none by its rows alone."""
    import numpy as np
    from scipy import stats

    share = stats.binomtest(175, 200).proportion_ci(method="wilson")
    x = np.random.default_rng(0).standard_normal((2, 60))
    fit = stats.pearsonr(x[0], x[0] + x[1])
    fisher = fit.confidence_interval()

    assert interval_of("accuracy", 0.875, 200) == pytest.approx((share.low, share.high))
    found = interval_of("pearson", float(fit.statistic), 60)
    assert found == pytest.approx((fisher.low, fisher.high))
    assert interval_of("accuracy", 1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert interval_of("f1", 0.5, 100) is None
