"""What stands in the place of an output until it is whole, and who may write there."""

import fcntl
import gzip
import io
from pathlib import Path
from typing import IO

import pytest

from spd_deploy.api.loading import Model
from spd_deploy.domain.errors import BadData, NotWritten, SpdError
from spd_deploy.scale.chunks import ChunkLimits
from spd_deploy.scale.partial_output import RunState, partial_folder
from spd_deploy.scale.predict_file import Streams
from tests.scale.predictions import ROWS, lines, predict, stop_in_the_middle


def test_an_unfinished_output_is_not_begun_again_unasked(model: Model, tmp_path: Path) -> None:
    """Hours of work are not thrown away by the same command; --overwrite does."""
    file, output = stop_in_the_middle(model, tmp_path)

    with pytest.raises(NotWritten, match=r"unfinished run.*rows are answered.*--resume, or"):
        predict(model, file, output)
    predict(model, file, output, overwrite=True)

    assert output.exists() and not partial_folder(output).exists()


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


def test_what_is_unfinished_is_looked_at_behind_the_lock(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends while a second one asks for the lock leaves an output, which is refused."""
    file, output = stop_in_the_middle(model, tmp_path)
    lock = fcntl.flock
    asked: list[bool] = []

    def locked(stream: IO[bytes], operation: int) -> None:
        if not asked:  # the first run takes the lock, ends, and removes the folder
            asked.append(True)
            predict(model, file, output, resume=True)
        lock(stream, operation)

    monkeypatch.setattr(fcntl, "flock", locked)
    with pytest.raises(NotWritten, match="exists"):
        predict(model, file, output, resume=True)

    assert len(output.read_text().splitlines()) == 1 + len(ROWS)
    assert not partial_folder(output).exists()


def test_a_file_that_breaks_off_keeps_what_came_before(model: Model, tmp_path: Path) -> None:
    """A truncated gzip file is an error that names it, behind whole chunks."""
    content = "".join(lines([{"id": i, "text": f"film {i * 7919}"}]) for i in range(6_000))
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(content.encode())[:-20])

    with pytest.raises(BadData, match=r"in\.jsonl\.gz does not decompress"):
        predict(model, tmp_path / "in.jsonl.gz", tmp_path / "x.csv", limits=ChunkLimits(rows=256))

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
