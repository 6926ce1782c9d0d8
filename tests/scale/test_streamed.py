"""A file of any length is answered as it is read, in constant memory."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from spd_deploy.api.loading import Model
from spd_deploy.domain.errors import Interrupted
from spd_deploy.scale.answer_formats import COMPRESSORS
from spd_deploy.scale.chunks import ChunkLimits
from spd_deploy.scale.predict_file import Streams
from tests.scale.predictions import LIMITS, ROWS, after, lines, predict


def test_chunks_change_no_answer(model: Model, tmp_path: Path) -> None:
    """The answers of many chunks are those of one, to rounding, in the order of the file."""
    (tmp_path / "in.jsonl").write_text(lines(ROWS))
    predict(model, tmp_path / "in.jsonl", tmp_path / "many.jsonl")
    predict(model, tmp_path / "in.jsonl", tmp_path / "one.jsonl", limits=ChunkLimits())

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


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_a_compressed_input_is_streamed(model: Model, tmp_path: Path, compression: str) -> None:
    """What is packed gives the answers of what is not."""
    name = f"in.jsonl.{compression}".rstrip(".")
    content = lines(ROWS).encode()
    (tmp_path / name).write_bytes(COMPRESSORS[compression](content))

    cost = predict(model, tmp_path / name, tmp_path / "x.csv")

    assert cost.rows == len(ROWS)
