"""From a CSV file to answers over HTTP, in Python alone."""

import json
import signal
import time
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import spd_deploy as spd
from spd_deploy.domain.errors import Interrupted
from spd_deploy.domain.latency_table import write_latency_table
from spd_deploy.domain.progress import Advance
from tests.cli.running import run_in
from tests.train.latency import latency_table


class PressCtrlC:
    """A listener that interrupts at the first step of the first stage."""

    def __init__(self) -> None:
        self.pressed = False

    def stage(
        self, name: str, total: int, *, slow_steps: Collection[int] = ()
    ) -> AbstractContextManager[Advance]:
        """Press when the stage moves."""

        def advance(steps: int = 1, *, note: str | None = None) -> None:
            if not self.pressed:
                self.pressed = True
                signal.raise_signal(signal.SIGINT)

        return nullcontext(advance)

    def note(self, text: str) -> None:
        """Say nothing."""


TEXTS = ["The film was good.", "A dull plot, and a bad ending."]


def test_a_training_tells_what_came_out(place: Path, trained: spd.TrainResult) -> None:
    """The result is the path of a checkpoint, has its scores, and keeps what was said."""
    assert trained.path == place / "runs" / "reviews"
    assert trained.checkpoint.task.labels == ("1", "5")
    assert str(trained.checkpoint.pattern) == "block:16x1"
    assert set(trained.checkpoint.scores) == {"dense", "sparse"}
    assert any("a tenth of the rows becomes dev" in note for note in trained.notes)
    assert "block:16x1 at 50%" in repr(trained)


def test_a_quiet_call_prints_nothing(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither bars nor notes reach the terminal unless ``progress`` is asked for."""
    train = partial(
        spd.train,
        data=place / "reviews.csv",
        text_column="review",
        label_column="stars",
        model=place / "MINILM_FOLDER",
        teacher_epochs=0.5,
        max_tokens=8,
        threads=1,
    )

    train(output=tmp_path / "quiet")
    spd.export(tmp_path / "quiet", output=tmp_path / "artefact")
    quiet = capfd.readouterr()
    train(output=tmp_path / "loud", progress=True)
    loud = capfd.readouterr()

    assert (quiet.out, quiet.err) == ("", "")
    assert "labels: '1' (" in loud.err


def test_threads_of_the_caller_stay(place: Path, tmp_path: Path) -> None:
    """A training with one thread leaves PyTorch with the number it had."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(spd.SpdError):
            spd.train(
                data=place / "reviews.csv", text_column="review", label_column="stars",
                model=tmp_path, threads=1, output=tmp_path / "run",
            )  # fmt: skip
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_finished_run_is_returned_when_resumed(trained: spd.TrainResult) -> None:
    """``resume`` with the output alone gives the checkpoint of the run that is there."""
    again = spd.train(resume=True, output=trained.path)

    assert again.checkpoint == trained.checkpoint


def test_a_checkpoint_is_a_model_of_transformers(trained: spd.TrainResult) -> None:
    """``AutoModelForSequenceClassification`` gives the probabilities that ``predict`` gives."""
    model = AutoModelForSequenceClassification.from_pretrained(trained.path).eval()
    tokenizer = AutoTokenizer.from_pretrained(trained.path)
    tokens = tokenizer(TEXTS[0], truncation=True, max_length=16, return_tensors="pt")
    with torch.no_grad():
        (expected,) = model(**tokens).logits.softmax(-1).tolist()

    with spd.load(trained, threads=1) as ours:
        found = ours.predict(TEXTS[0])

    assert [found.scores["1"], found.scores["5"]] == pytest.approx(expected, abs=1e-5)


def test_an_artefact_answers_as_its_checkpoint(
    trained: spd.TrainResult, exported: spd.ExportResult
) -> None:
    """The exported model gives the checkpoint's scores, in another runtime."""
    with spd.load(trained, threads=1) as torch_model, spd.load(exported, threads=1) as model:
        assert (torch_model.runtime.runtime, model.runtime.runtime) == ("torch", "onnxruntime")
        expected, found = torch_model.predict(TEXTS), model.predict(TEXTS)

    assert found.labels == expected.labels
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_answers_are_those_of_the_command(place: Path, exported: spd.ExportResult) -> None:
    """``spd predict`` writes the labels and, rounded, the scores of ``predict``."""
    (place / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    lines = run_in(place, f"predict {exported.path} --input texts.jsonl --threads 1").stdout

    with spd.load(exported, threads=1) as model:
        found = model.predict(TEXTS)

    told = [json.loads(line) for line in lines.splitlines()]
    assert [answer["label"] for answer in told] == found.labels
    assert [answer["score"] for answer in told] == pytest.approx(found.scores, rel=1e-5)


def test_a_score_is_that_of_the_command(place: Path, exported: spd.ExportResult) -> None:
    """``evaluate`` scores the rows that training held out, as ``spd evaluate`` does."""
    command = f"evaluate {exported.path} --data reviews.csv --threads 1 --json"

    found = spd.evaluate(exported, data=place / "reviews.csv", threads=1)

    assert found.to_json() == json.loads(run_in(place, command).stdout)
    assert (found.split, found.rows) == ("dev, a tenth of the file", 12)
    assert "accuracy" in repr(found)


def test_an_inspection_is_that_of_the_command(place: Path, exported: spd.ExportResult) -> None:
    """Every matrix has the density that the pattern leaves, and the JSON is the command's."""
    found = spd.inspect(exported)

    assert {row.density for row in found.matrices} == {0.5}
    told = json.loads(run_in(place, f"inspect {exported.path} --json").stdout)
    assert json.loads(json.dumps(found.to_json())) == told


def test_layers_are_measured(exported: spd.ExportResult) -> None:
    """With ``measure`` each of the twelve matrices has a time beside its dense form."""
    found = spd.inspect(exported, measure=True, seq=8, threads=1, seconds=0.02)

    assert found.measured is not None
    assert len(found.measured.matrices) == len(found.matrices) == 12
    assert "speed-up" in repr(found)


def test_a_benchmark_writes_its_report(
    tmp_path: Path, trained: spd.TrainResult, exported: spd.ExportResult
) -> None:
    """Teacher and artefact are measured at each shape, and the page is where the result says."""
    found = spd.bench(
        exported,
        baseline=trained.path / "teacher",
        batch=[1, 2],
        seq=[8],
        threads=1,
        rounds=2,
        seconds=0.02,
        output=tmp_path / "report",
    )

    assert found.page is not None and found.page.is_file()
    assert [arm.name for arm in found.report.arms] == ["teacher", "reviews"]
    assert len(found.judgement.rows) == 2 * 2
    assert found.headlines[0] in repr(found)


def test_the_app_answers(exported: spd.ExportResult) -> None:
    """Starlette's client gets the label over HTTP that ``predict`` gives."""
    app = spd.create_app(exported, threads=1)
    with spd.load(exported, threads=1) as model:
        expected = model.predict(TEXTS[0])

    with TestClient(app) as client:
        deadline = time.perf_counter() + 60
        while client.get("/readyz").status_code != 200 and time.perf_counter() < deadline:
            time.sleep(0.01)
        answer = client.post("/v1/classify", json={"inputs": [{"text": TEXTS[0]}]}).json()

    assert answer["results"][0]["labels"][0]["label"] == expected.label


def test_several_seeds_give_a_mean(place: Path, tmp_path: Path) -> None:
    """The result shows the mean over the seeds, and stands for the checkpoint of the first one."""
    found = spd.train(
        data=place / "reviews.csv",
        text_column="review",
        label_column="stars",
        model=place / "MINILM_FOLDER",
        teacher_epochs=0.5,
        max_tokens=8,
        threads=1,
        seeds=2,
        output=tmp_path / "runs",
    )

    assert found.seeds is not None
    summary = found.seeds.summaries()["dense"]["accuracy"]
    assert summary is not None
    each = [run.scores["dense"]["accuracy"] for run in found.seeds.runs.values()]
    assert f"{sum(map(float, filter(None, each))) / 2:.4f}" in repr(found)
    assert found.path == tmp_path / "runs" / "seed-0"


def test_pruning_needs_no_training(place: Path, tmp_path: Path, trained: spd.TrainResult) -> None:
    """The teacher pruned in one shot keeps the pattern, and says how far it agrees."""
    found = spd.prune(
        trained.path / "teacher",
        pattern="2:4",
        data=place / "reviews.csv",
        mask_updates=1,
        calibration_tokens=256,
        precision="fp32",
        output=tmp_path / "pruned",
    )

    assert {row.density for row in spd.inspect(found).matrices} == {0.5}
    assert 0 <= found.agreement.value <= 1
    assert found.agreement.sentence in repr(found)


def test_ctrl_c_saves_the_run(place: Path, tmp_path: Path) -> None:
    """A Ctrl-C while training is an ``Interrupted`` that names the way on, which ends the run."""
    with pytest.raises(Interrupted, match="--resume --output"):
        spd.train(
            data=place / "reviews.csv", text_column="review", label_column="stars",
            model=place / "MINILM_FOLDER", max_tokens=8, threads=1, teacher_epochs=0.5,
            output=tmp_path / "run", progress=PressCtrlC(),
        )  # fmt: skip

    assert spd.train(resume=True, output=tmp_path / "run").path == tmp_path / "run"


def test_a_speedup_is_one_number_or_several(place: Path, tmp_path: Path) -> None:
    """A number gives a student in the output folder, several a family with a row for each."""
    table = tmp_path / "latency.json"
    times = latency_table(hidden=32, intermediate=64)
    write_latency_table(table, times)
    settings: dict[str, Any] = {
        "data": place / "reviews.csv",
        "text_column": "review",
        "label_column": "stars",
        "epochs": 0.3,
        "max_tokens": 16,
        "calibration_tokens": 64,
        "threads": 1,
        "latency_table": table,
        "any_machine": True,
    }
    one = spd.train(
        model=place / "MINILM_FOLDER",
        teacher_epochs=0.3,
        speedup=2,
        output=tmp_path / "one",
        **settings,
    )
    several = spd.train(
        teacher=tmp_path / "one" / "teacher",
        speedup=[1.5, 3],
        at=[str(shape) for shape in times.shapes],
        output=tmp_path / "several",
        **settings,
    )

    assert one.path == tmp_path / "one"
    assert several.path == tmp_path / "several" / "3x"
    assert several.family is not None
    assert [member.speedup for member in several.family.members] == [1.5, 3]
    assert "1.5x" in repr(several) and "3x" in repr(several)
