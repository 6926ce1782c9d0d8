"""A file of any length is answered in constant memory, and a killed run is continued."""

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from exporters.export import artefact_from_checkpoint
from spd_deploy.api.loading import Model, load
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import BadData, BadSetting, Interrupted, NotWritten, SpdError
from spd_deploy.domain.progress import Silent
from spd_deploy.scale.answer_formats import PACKERS, format_of
from spd_deploy.scale.cost import FileCost
from spd_deploy.scale.file_request import FileRequest
from spd_deploy.scale.partial_output import RunState, partial_folder
from spd_deploy.scale.predict_file import Streams, predict_file
from spd_deploy.scale.windows import WindowLimits
from tests.tiny import tiny_checkpoint

ROOT = Path(__file__).parents[2]
WORDS = (
    "a",
    "great",
    "film",
    ".",
    "never",
    "dull",
    "but",
    "slower",
    "than",
    "the",
    "bus",
    "and",
    "not",
)
LIMITS = WindowLimits(rows=16)
ROWS = [{"id": i, "text": " ".join(WORDS[: 1 + i % 13])} for i in range(100)]
OUTPUTS = ["x.jsonl", "x.csv", "x.tsv", "x.parquet", "x.csv.gz", "x.jsonl.bz2", "x.tsv.xz"]
OUTPUTS += ["x.jsonl.zst"]


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    folder = tmp_path_factory.mktemp("scale")
    return artefact_from_checkpoint(tiny_checkpoint(folder / "c", task="sst2"), folder / "a")


@pytest.fixture(scope="module")
def model(artefact: Artefact) -> Model:
    return load(artefact.folder, threads=1)


def lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def predict(
    model: Model,
    file: Path,
    output: Path | None,
    *,
    stopped: Callable[[], bool] = lambda: False,
    streams: Streams | None = None,
    **more: Any,
) -> FileCost:
    request = FileRequest(
        **{
            "input": file,
            "output": output,
            "format": format_of(output, None, "jsonl"),
            "limits": LIMITS,
            **more,
        }
    )
    return predict_file(
        model.opened(),
        request,
        progress=Silent(),
        streams=streams or Streams(input=io.BytesIO(), output=io.BytesIO()),
        stopped=stopped,
    )


def after(calls: int) -> Callable[[], bool]:
    """A signal that comes after so many batches."""
    left = iter(range(calls))
    return lambda: next(left, None) is None


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


KILLED = """
import io, sys, time
from pathlib import Path
from spd_deploy.api.loading import load
from spd_deploy.domain.progress import Silent
from spd_deploy.scale import partial_output
from spd_deploy.scale.answer_formats import format_of
from spd_deploy.scale.file_request import FileRequest
from spd_deploy.scale.predict_file import Streams, predict_file
from spd_deploy.scale.windows import WindowLimits
partial_output._RECORD_EVERY_S = 0.0
output = Path(sys.argv[3])
request = FileRequest(input=Path(sys.argv[2]), output=output, limits=WindowLimits(rows=16),
                      format=format_of(output, None, "jsonl"))
model = load(sys.argv[1], threads=1)
predict_file(model.opened(), request, progress=Silent(),
             streams=Streams(input=io.BytesIO(), output=io.BytesIO()),
             stopped=lambda: time.sleep(0.5))
"""


def test_a_killed_process_loses_and_doubles_no_row(
    artefact: Artefact, model: Model, tmp_path: Path
) -> None:
    """SIGKILL at any time, and garbage behind the last whole window, leave the same output."""
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


def test_windows_change_no_answer(model: Model, tmp_path: Path) -> None:
    """The answers of many windows are those of one, to rounding, in the order of the file."""
    (tmp_path / "in.jsonl").write_text(lines(ROWS))
    predict(model, tmp_path / "in.jsonl", tmp_path / "many.jsonl")
    predict(model, tmp_path / "in.jsonl", tmp_path / "one.jsonl", limits=WindowLimits())

    many, one = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("many.jsonl", "one.jsonl")
    )
    assert [row["id"] for row in many] == [row["id"] for row in ROWS]
    for a, b in zip(many, one, strict=True):
        assert a["scores"] == pytest.approx(b["scores"], abs=1e-5)


def test_what_it_cost_counts_tokens_and_cut_texts(model: Model, tmp_path: Path) -> None:
    """Tokens are those that the model read, and a text longer than it reads counts as cut."""
    long = "film " * 100
    (tmp_path / "in.jsonl").write_text(lines([{"text": "a film"}, {"text": long}]))

    cost = predict(model, tmp_path / "in.jsonl", tmp_path / "x.jsonl")

    assert (cost.rows, cost.truncated) == (2, 1)
    assert cost.tokens == 4 + model.tokenizer.max_tokens
    assert "2 rows in" in str(cost) and "1 truncated (50.0 %)" in str(cost)


LINE = b'{"text": "a film"}\n'


class Endless(io.RawIOBase):
    """JSON Lines without an end, and how many bytes of them were read."""

    def __init__(self) -> None:
        self.given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = len(buffer)
        begun = self.given % len(LINE)
        buffer[:] = (LINE * (size // len(LINE) + 2))[begun : begun + size]
        self.given += size
        return size


def test_an_endless_pipe_is_answered_as_it_comes(model: Model) -> None:
    """Answers are written while it is read, and few rows are read ahead of them."""
    source = Endless()
    written = io.BytesIO()
    streams = Streams(input=io.BufferedReader(source), output=written)

    with pytest.raises(Interrupted):
        predict(model, Path("-"), None, streams=streams, stopped=after(6))

    answered = written.getvalue().count(b"\n")
    buffers = 4 * (1 << 16) // len(LINE)  # of what is looked at first, and of decoders
    assert answered >= LIMITS.rows
    assert source.given // len(LINE) <= answered + 4 * LIMITS.rows + buffers


def test_columns_of_parquet_pass_unchanged(model: Model, tmp_path: Path) -> None:
    """Types that Python has no value for come out as they went in, in each row but broken ones."""
    count = 50
    table = pa.table(
        {
            "text": pa.array([None if i == 20 else "a film" for i in range(count)]),
            "when": pa.array(range(count), pa.timestamp("ns")),
            "kind": pa.array(["a", "b"] * (count // 2)).dictionary_encode(),
            "f": pa.array([float("nan")] * count, pa.float32()),
            "nested": pa.array([{"l": [i]} for i in range(count)]),
        }
    )
    parquet.write_table(table, tmp_path / "in.parquet", row_group_size=7)

    predict(model, tmp_path / "in.parquet", tmp_path / "x.parquet", skip_broken_rows=True)

    found = parquet.read_table(tmp_path / "x.parquet")
    kept = [i for i in range(count) if i != 20]
    for name in table.column_names:
        assert found[name].type == table[name].type
        assert str(found[name].to_pylist()) == str(table[name].take(kept).to_pylist())
    assert found.column_names[-5:-2] == ["label", "score", "truncated"]


@pytest.mark.parametrize("packing", PACKERS)
def test_a_compressed_table_is_read_by_others(model: Model, tmp_path: Path, packing: str) -> None:
    """Several windows make one file, as pandas reads it."""
    pandas = pytest.importorskip("pandas")
    if packing == "zst":
        pytest.importorskip("zstandard")
    (tmp_path / "in.jsonl").write_text(lines(ROWS))
    output = tmp_path / f"x.csv.{packing}".rstrip(".")

    predict(model, tmp_path / "in.jsonl", output)

    assert list(pandas.read_csv(output)["id"]) == list(range(len(ROWS)))


CHANGED = [
    ("in.jsonl", "x.csv", {"id": 1, "text": "a", "more": 2}, "line 41: the field 'more' begins"),
    ("in.jsonl", "x.jsonl", {"text": "a", "label": "x"}, "line 41: the field 'label' begins in"),
    ("in.jsonl", "x.parquet", {"id": "one", "text": "a"}, "line 41: the field 'id' has another"),
    ("in.jsonl", "x.csv", {"id": 1}, "line 41: no column 'text'"),
    ("in.jsonl", "x.csv", {"text": "a", "id": "\ud800"}, "line 41: half of a surrogate pair"),
]


@pytest.mark.parametrize(("name", "output", "row", "said"), CHANGED)
def test_columns_that_change_in_the_middle_are_refused_by_row(
    model: Model, tmp_path: Path, name: str, output: str, row: dict[str, Any], said: str
) -> None:
    """The row is named, nothing is written in the output's place, and the rows before are kept."""
    (tmp_path / name).write_text(lines([*ROWS[:40], row, *ROWS[40:]]))

    with pytest.raises(BadData, match=said):
        predict(model, tmp_path / name, tmp_path / output)

    assert not (tmp_path / output).exists()
    state = RunState.read_from(partial_folder(tmp_path / output) / "progress.json")
    assert state.written == 32


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


def stop_in_the_middle(model: Model, folder: Path) -> tuple[Path, Path]:
    (folder / "in.jsonl").write_text(lines(ROWS))
    with pytest.raises(Interrupted):
        predict(model, folder / "in.jsonl", folder / "x.csv", stopped=after(3))
    return folder / "in.jsonl", folder / "x.csv"


def test_an_unfinished_output_is_not_begun_again_unasked(model: Model, tmp_path: Path) -> None:
    """Hours of work are not thrown away by the same command; --overwrite does."""
    file, output = stop_in_the_middle(model, tmp_path)

    with pytest.raises(NotWritten, match=r"unfinished run.*rows are answered.*--resume, or"):
        predict(model, file, output)
    predict(model, file, output, overwrite=True)

    assert output.exists() and not partial_folder(output).exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.write_text(file.read_text() + lines(ROWS[:1])), "content of the input"),
        (lambda file: os.utime(file, (1, 1)), "content of the input"),
        (lambda file: {"input": file.rename(file.with_name("other.jsonl"))}, "another input"),
        (lambda _: {"text_column": "id"}, "another --text-column"),
        (lambda _: {"limits": WindowLimits(rows=17)}, "another size of windows"),
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


def test_two_processes_do_not_write_one_output(model: Model, tmp_path: Path) -> None:
    """The second is refused while the first one runs."""
    (tmp_path / "in.jsonl").write_text(lines(ROWS))
    said: list[str] = []

    def second() -> bool:
        if not said:
            said.append("asked")
            with pytest.raises(SpdError, match="another process writes"):
                predict(model, tmp_path / "in.jsonl", tmp_path / "x.csv", overwrite=True)
            said.append("refused")
        return False

    predict(model, tmp_path / "in.jsonl", tmp_path / "x.csv", stopped=second)

    assert said == ["asked", "refused"]


@pytest.mark.parametrize("packing", PACKERS)
def test_a_compressed_input_is_streamed(model: Model, tmp_path: Path, packing: str) -> None:
    """What is packed gives the answers of what is not."""
    name = f"in.jsonl.{packing}".rstrip(".")
    content = lines(ROWS).encode()
    (tmp_path / name).write_bytes(PACKERS[packing](content))

    cost = predict(model, tmp_path / name, tmp_path / "x.csv")

    assert cost.rows == len(ROWS)


def test_a_file_that_breaks_off_keeps_what_came_before(model: Model, tmp_path: Path) -> None:
    """A truncated gzip file is an error that names it, behind whole windows."""
    content = "".join(lines([{"id": i, "text": f"film {i * 7919}"}]) for i in range(6_000))
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(content.encode())[:-20])

    with pytest.raises(BadData, match=r"in\.jsonl\.gz does not decompress"):
        predict(model, tmp_path / "in.jsonl.gz", tmp_path / "x.csv", limits=WindowLimits(rows=256))

    assert RunState.read_from(partial_folder(tmp_path / "x.csv") / "progress.json").written >= 256


def test_a_pipe_that_breaks_leaves_nothing_behind(model: Model, tmp_path: Path) -> None:
    """What cannot be read again cannot be resumed, so that no unfinished output stays."""
    piped = io.BytesIO(lines([*ROWS, {"id": 1}]).encode())

    with pytest.raises(BadData, match=r"stdin\.jsonl, line 101"):
        predict(
            model,
            Path("-"),
            tmp_path / "x.csv",
            streams=Streams(input=piped, output=io.BytesIO()),
        )

    assert not list(tmp_path.iterdir())
