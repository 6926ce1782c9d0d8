"""A training of an encoder from the hub that a tracker follows: what is recorded, and where."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import spd_deploy as spd
from spd_deploy.domain.errors import Unavailable
from spd_deploy.hub.fetch import fetch_model
from spd_train.training.metrics_log import read_metrics_log
from spd_train.training.trackers import flat, installed_trackers, tracking
from tests.cli.user_folder import mrpc_files
from tests.hub.stand_in import Hub, running_hub, use_hub
from tests.tiny import tiny_checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tests in this module."""
    return tmp_path_factory.mktemp("tracked")


@pytest.fixture(scope="module")
def hub(place: Path) -> Iterator[Hub]:
    """A hub with a small encoder, that this process talks to."""
    with running_hub() as hub, pytest.MonkeyPatch.context() as patch:
        use_hub(patch, hub.url, place / "cache")
        hub.add("us/encoder", tiny_checkpoint(place / "model", task="mrpc", layers=1).folder)
        yield hub


@pytest.fixture(scope="module")
def trained(place: Path, hub: Hub) -> spd.TrainResult:
    """A teacher and a student of the hub's encoder."""
    return spd.train(
        task="mrpc",
        data=mrpc_files(place / "MRPC"),
        model="us/encoder@main",
        pattern="2:4",
        teacher_epochs=0.2,
        epochs=0.3,
        threads=1,
        track="tensorboard",
        output=place / "run",
    )


def events(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows: the value of each step by name."""
    found = EventAccumulator(str(folder))
    found.Reload()
    return {
        name: {one.step: one.value for one in found.Scalars(name)}
        for name in found.Tags()["scalars"]
    }


@pytest.mark.parametrize(("folder", "run"), [("run", "run"), ("run/teacher", "run-teacher")])
def test_a_tracker_gets_the_figures_of_the_log(
    place: Path, trained: spd.TrainResult, folder: str, run: str
) -> None:
    """Teacher and student have a run each, with every number of every record, the final one too."""
    shown = events(place / "run" / "tensorboard" / run)

    logged: dict[str, dict[int, float]] = {}
    for record in read_metrics_log(place / folder / "log.jsonl"):
        kind, step = record.pop("kind"), record.pop("step")
        for name, value in flat(record):
            if not isinstance(value, str):
                logged.setdefault(f"{kind}/{name}", {})[step] = value
    assert {"step/loss", "score/epoch", "final/chosen_step"} <= set(logged)
    assert set(shown) == set(logged)
    for name, values in logged.items():
        assert shown[name] == pytest.approx(values), name
    assert not (place / folder / "trackers.json").exists()


def test_a_training_records_the_commit_that_it_read(
    place: Path, hub: Hub, trained: spd.TrainResult
) -> None:
    """It is in run.json, spd.json and the manifest, and is what a resumed run reads."""
    commit = hub.repositories["us/encoder"].revisions["main"]
    hub.repositories["us/encoder"].commit({"model.safetensors": b"another"}, "main")

    record = json.loads((place / "run" / "run.json").read_text())
    resumed = fetch_model(record["command"]["model"])
    exported = spd.export(trained, output=place / "artefact")

    assert record["origins"]["model"]["commit"] == commit
    assert record["command"]["track"] == ["tensorboard"]
    assert resumed.origin is not None and resumed.origin.commit == commit
    for origins in (trained.checkpoint.origins, exported.manifest.origins):
        assert (origins["pretrained"].revision, origins["pretrained"].commit) == ("main", commit)


def test_a_resumed_run_continues_the_curve(tmp_path: Path) -> None:
    """Steps after the saved state are replaced, as in the log."""
    for first, value in ((0, 1.0), (3, 2.0)):
        # TensorBoard orders its files by their whole second.
        time.sleep(1.0 - datetime.now(UTC).microsecond / 1e6)
        with tracking(
            ["tensorboard"], tmp_path, {"recipe": {"name": "spd"}}, on_cpu=True, note=pytest.fail
        ) as on_record:
            for step in range(first, 5):
                on_record(tmp_path, "step", step, {"loss": value, "nan": float("nan")})

    found = events(tmp_path / "tensorboard" / tmp_path.name)

    assert found == {"step/loss": {0: 1.0, 1: 1.0, 2: 1.0, 3: 2.0, 4: 2.0}}


def test_a_tracker_that_fails_is_told_once_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records go on; one that fails before anything was tracked ends the command."""
    from accelerate.tracking import TensorBoardTracker

    notes: list[str] = []
    with tracking(["tensorboard"], tmp_path, {}, on_cpu=True, note=notes.append) as on_record:
        on_record(tmp_path, "step", 0, {"loss": 1.0})
        monkeypatch.setattr(TensorBoardTracker, "log", fail)
        on_record(tmp_path, "step", 1, {"loss": 1.0})
        on_record(tmp_path, "step", 2, {"loss": 1.0})
        on_record(tmp_path / "student", "step", 0, {"loss": 1.0})
    monkeypatch.setattr(TensorBoardTracker, "start", fail)

    assert notes == ["warning: tensorboard failed and gets no more records: no route to host"]
    with (
        pytest.raises(Unavailable, match="--track tensorboard could not start; got no route"),
        tracking(["tensorboard"], tmp_path, {}, on_cpu=True, note=pytest.fail) as on_record,
    ):
        on_record(tmp_path, "step", 0, {"loss": 1.0})


def fail(*args: object, **kwargs: object) -> None:
    """A server that is gone."""
    raise OSError("no route to host\nTraceback")


def test_a_tracker_that_is_not_installed_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the package; all takes those that are there, and needs one."""
    from accelerate import tracking as trackers

    assert installed_trackers(["tensorboard", "tensorboard"]) == ("tensorboard",)
    assert "tensorboard" in installed_trackers(["all"])
    monkeypatch.setattr(trackers, "get_available_trackers", list)

    with pytest.raises(Unavailable, match="not installed: comet-ml; pip install comet-ml, or"):
        spd.train(task="mrpc", model="m", track=["comet_ml"], output=tmp_path / "run")
    with pytest.raises(Unavailable, match="--track all finds no tracker that is installed"):
        installed_trackers(["all"])
    assert not (tmp_path / "run").exists()
