"""Rows of a pipe: what has come is answered when it pauses, and what one row says twice is told."""

import io
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import pytest

from spd_deploy.api.loading import Model
from spd_deploy.cli.inputs.standard_input import StoppableInput
from spd_deploy.domain.errors import BadData
from spd_deploy.scale.arriving_rows import arriving_groups, groups_of
from spd_deploy.scale.predict_file import Streams
from tests.scale.predictions import predict

LONG_S = 30.0


class Output(io.BytesIO):
    """An output whose pieces are seen as they are written."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: Queue[bytes] = Queue()

    def write(self, content: bytes) -> int:  # type: ignore[override]
        """Keep a piece."""
        self.pieces.put(content)
        return super().write(content)


@pytest.mark.parametrize(
    ("kind", "head", "rows"),
    [
        ("jsonl", b"", [b'{"text": "a film", "id": %d}\n' % i for i in range(3)]),
        ("csv", b"text,id\n", [b"a film,%d\n" % i for i in range(3)]),
        ("tsv", b"text\tid\n", [b"a film\t%d\n" % i for i in range(3)]),
    ],
)
def test_each_row_is_answered_before_the_next_one_comes(
    model: Model, kind: str, head: bytes, rows: list[bytes]
) -> None:
    """A program that waits for each answer gets it, though the pipe stays open."""
    into, out = os.pipe()
    output = Output()
    with os.fdopen(into, "rb", 0) as raw, os.fdopen(out, "wb", 0) as writer:
        streams = Streams(
            input=io.BufferedReader(StoppableInput(raw, lambda: False)), output=output
        )
        thread = threading.Thread(
            target=predict,
            args=(model, Path("-"), None),
            kwargs={"streams": streams, "stdin_kind": kind},
        )
        thread.start()
        writer.write(head)
        for i, row in enumerate(rows):
            writer.write(row)
            answer = json.loads(output.pieces.get(timeout=LONG_S))
            assert (int(answer["id"]), "label" in answer) == (i, True)
        writer.close()
        thread.join(LONG_S)
    assert not thread.is_alive() and output.pieces.empty()


def test_rows_that_come_fast_are_grouped_as_those_of_a_file() -> None:
    """Full groups in order, the rest at the end, and no pause while rows come."""
    found = list(arriving_groups(range(1000), 128, pause_s=LONG_S))

    assert found == list(groups_of(range(1000), 128))


def test_a_pause_ends_a_group_and_is_told_once() -> None:
    """What came before it is one group with an empty one behind; rows behind it are the next."""
    may_go_on = threading.Event()

    def rows() -> Iterator[int]:
        yield from (1, 2)
        assert may_go_on.wait(LONG_S)
        yield 3

    groups = arriving_groups(rows(), 128, pause_s=0.05)

    assert [next(groups), next(groups)] == [[1, 2], []]
    may_go_on.set()
    assert [group for group in groups if group] == [[3]]


def test_an_error_of_the_reader_comes_behind_its_rows() -> None:
    """Rows that were read before it are handed on first."""

    def rows() -> Iterator[int]:
        yield 1
        raise BadData("broken", fix="mend it")

    groups = arriving_groups(rows(), 128)

    assert next(groups) == [1]
    with pytest.raises(BadData, match="broken"):
        list(groups)


def test_rows_are_not_read_far_ahead_nor_after_the_end() -> None:
    """A slow taker holds the reader, and one that stops ends it."""
    read: list[int] = []

    def rows() -> Iterator[int]:
        for i in range(1_000_000):
            read.append(i)
            yield i

    groups = arriving_groups(rows(), 16)
    assert next(groups) == list(range(16))
    time.sleep(0.2)
    ahead = len(read)
    groups.close()  # type: ignore[attr-defined]

    assert ahead <= 16 * 10
    assert len(read) <= ahead + 1


@pytest.mark.parametrize(
    "row",
    [
        '{"text": "a film", "id": 1, "id": 2}',
        '{"text": "a film", "meta": {"id": 1, "id": 2}}',
        '{"text": "a film", "meta": [{"id": 1, "id": 2}, {"a": 1}], "z": {"a": 1}}',
    ],
    ids=["row", "object", "list"],
)
def test_a_field_that_occurs_twice_is_refused(model: Model, tmp_path: Path, row: str) -> None:
    """One of its values would be lost; the row is named, and may be left out."""
    (tmp_path / "in.jsonl").write_text('{"text": "the bus", "id": 0}\n' + row + "\n")
    output = tmp_path / "x.jsonl"

    with pytest.raises(BadData, match=r"line 2: the field 'id' occurs twice.*--skip-broken-rows"):
        predict(model, tmp_path / "in.jsonl", output)
    cost = predict(model, tmp_path / "in.jsonl", output, skip_broken_rows=True)

    assert (cost.rows, cost.skipped) == (1, 1)


def test_names_of_several_objects_may_be_alike(model: Model, tmp_path: Path) -> None:
    """A name that an object and one in it have is no name that occurs twice."""
    row = (
        '{"text": "a film", "id": 1, "meta": {"id": 2, "text": ""}, "more": [{"id": 1}, {"id": 2}]}'
    )
    (tmp_path / "in.jsonl").write_text(row + "\n")

    predict(model, tmp_path / "in.jsonl", tmp_path / "x.jsonl")

    found = json.loads((tmp_path / "x.jsonl").read_text())
    assert {name: found[name] for name in json.loads(row)} == json.loads(row)
