"""Rows of a file, and what ``spd predict --input`` does with it, in small chunks."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from spd_deploy.api.loading import Model
from spd_deploy.domain.errors import Interrupted
from spd_deploy.domain.progress import Silent
from spd_deploy.scale.answer_formats import format_of
from spd_deploy.scale.chunks import ChunkLimits
from spd_deploy.scale.cost import FileCost
from spd_deploy.scale.file_request import FileRequest
from spd_deploy.scale.predict_file import Streams, predict_file

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
LIMITS = ChunkLimits(rows=16)
ROWS = [{"id": i, "text": " ".join(WORDS[: 1 + i % 13])} for i in range(100)]


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


def stop_in_the_middle(model: Model, folder: Path) -> tuple[Path, Path]:
    (folder / "in.jsonl").write_text(lines(ROWS))
    with pytest.raises(Interrupted):
        predict(model, folder / "in.jsonl", folder / "x.csv", stopped=after(3))
    return folder / "in.jsonl", folder / "x.csv"
