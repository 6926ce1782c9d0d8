"""A run that was stopped or killed goes on, and ends with the output of one that was not."""

import csv
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporters.export import artefact_from_checkpoint
from spd_deploy.api.loading import Model, load
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import BadData, BadSetting, Interrupted, NotWritten
from spd_deploy.scale.chunks import ChunkLimits
from spd_deploy.scale.partial_output import RunState, partial_folder
from tests.scale.predictions import ROWS, after, lines, predict, stop_in_the_middle
from tests.tiny import tiny_checkpoint

OUTPUTS = ["x.jsonl", "x.csv", "x.tsv", "x.parquet", "x.csv.gz", "x.jsonl.bz2", "x.tsv.xz"]
OUTPUTS += ["x.jsonl.zst"]


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("batches", [3, 5])
def test_a_resumed_output_is_that_of_an_uninterrupted_run(
    model: Model, tmp_path: Path, name: str, batches: int
) -> None:
    """Byte for byte, in each format; until the end there is no output, and then nothing beside."""
    (tmp_path / "in.jsonl").write_text(lines(ROWS))
    whole, stopped = tmp_path / "whole" / name, tmp_path / "stopped" / name
    predict(model, tmp_path / "in.jsonl", whole)

    with pytest.raises(Interrupted):
        predict(model, tmp_path / "in.jsonl", stopped, stopped=after(batches))
    assert not stopped.exists() and partial_folder(stopped).is_dir()
    cost = predict(model, tmp_path / "in.jsonl", stopped, resume=True)

    assert stopped.read_bytes() == whole.read_bytes()
    assert list(stopped.parent.iterdir()) == [stopped]
    assert cost.rows == len(ROWS)


ROOT = Path(__file__).parents[2]


KILLED = """
import io, sys, time
from pathlib import Path
from spd_deploy.api.loading import load
from spd_deploy.domain.progress import Silent
from spd_deploy.scale import partial_output
from spd_deploy.scale.answer_formats import format_of
from spd_deploy.scale.file_request import FileRequest
from spd_deploy.scale.predict_file import Streams, predict_file
from spd_deploy.scale.chunks import ChunkLimits
partial_output._RECORD_EVERY_S = 0.0
output = Path(sys.argv[3])
request = FileRequest(input=Path(sys.argv[2]), output=output, limits=ChunkLimits(rows=16),
                      format=format_of(output, None, "jsonl"))
model = load(sys.argv[1], threads=1)
predict_file(model.opened(), request, progress=Silent(),
             streams=Streams(input=io.BytesIO(), output=io.BytesIO()),
             stopped=lambda: time.sleep(0.5))
"""


def test_a_killed_process_loses_and_doubles_no_row(
    artefact: Artefact, model: Model, tmp_path: Path
) -> None:
    """SIGKILL at any time, and garbage behind the last whole chunk, leave the same output."""
    (tmp_path / "in.jsonl").write_text(lines(ROWS))
    predict(model, tmp_path / "in.jsonl", tmp_path / "whole.csv")
    output = tmp_path / "killed.csv"
    words = [str(artefact.folder), str(tmp_path / "in.jsonl"), str(output)]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *words], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    state = partial_folder(output) / "progress.json"
    deadline = time.perf_counter() + 120
    while not state.exists() and process.poll() is None and time.perf_counter() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < RunState.read_from(state).written < len(ROWS)
    with (partial_folder(output) / "rows").open("ab") as stream:
        stream.write(b'7,"half a ro')

    predict(model, tmp_path / "in.jsonl", output, resume=True)

    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_broken_row_is_passed_over_by_a_resumed_run(model: Model, tmp_path: Path) -> None:
    """After the refusal, --skip-broken-rows goes on where it stopped."""
    rows = [*ROWS[:40], {"id": 0, "text": ""}, *ROWS[40:]]
    (tmp_path / "in.jsonl").write_text(lines(rows))
    output = tmp_path / "x.csv"
    with pytest.raises(BadData, match=r"line 41: empty text.*--skip-broken-rows"):
        predict(model, tmp_path / "in.jsonl", output)

    cost = predict(model, tmp_path / "in.jsonl", output, resume=True, skip_broken_rows=True)

    assert (cost.rows, cost.skipped) == (100, 1)
    found = list(csv.DictReader(io.StringIO(output.read_text())))
    assert [int(row["id"]) for row in found] == list(range(100))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.write_text(file.read_text() + lines(ROWS[:1])), "content of the input"),
        (lambda file: os.utime(file, (1, 1)), "content of the input"),
        (lambda file: {"input": file.rename(file.with_name("other.jsonl"))}, "another input"),
        (lambda _: {"text_column": "id"}, "another --text-column"),
        (lambda _: {"limits": ChunkLimits(rows=17)}, "another size of chunks"),
    ],
)
def test_a_resume_with_something_else_is_refused(
    model: Model, tmp_path: Path, change: Callable[[Path], Any], said: str
) -> None:
    """It says what differs, and the unfinished output stays."""
    file, output = stop_in_the_middle(model, tmp_path)
    more = change(file)
    asked = {"input": file, **(more if isinstance(more, dict) else {})}

    with pytest.raises(BadSetting, match=said):
        predict(model, output=output, resume=True, file=asked.pop("input"), **asked)

    assert RunState.read_from(partial_folder(output) / "progress.json").written


def test_a_resume_with_another_model_is_refused(model: Model, tmp_path: Path) -> None:
    """Half of the answers of one model and half of another's would be nobody's."""
    file, output = stop_in_the_middle(model, tmp_path)
    checkpoint = tiny_checkpoint(tmp_path / "c", task="sst2", seed=1)
    other = artefact_from_checkpoint(checkpoint, tmp_path / "a")

    with load(other.folder) as another, pytest.raises(BadSetting, match="with another model"):
        predict(another, file, output, resume=True)


def test_a_resume_of_nothing_begins(model: Model, tmp_path: Path) -> None:
    """The same command may be given at every start of a job."""
    (tmp_path / "in.jsonl").write_text(lines(ROWS))

    cost = predict(model, tmp_path / "in.jsonl", tmp_path / "x.csv", resume=True)

    assert cost.rows == len(ROWS)
    with pytest.raises(NotWritten, match="already exists"):
        predict(model, tmp_path / "in.jsonl", tmp_path / "x.csv", resume=True)
