"""The columns of a file pass to its answers, and may not change in the middle."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from spd_deploy.api.loading import Model
from spd_deploy.domain.errors import BadData
from spd_deploy.scale.answer_formats import COMPRESSORS
from spd_deploy.scale.partial_output import RunState, partial_folder
from tests.scale.predictions import ROWS, lines, predict


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


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_a_compressed_table_is_read_by_others(
    model: Model, tmp_path: Path, compression: str
) -> None:
    """Several chunks make one file, as pandas reads it."""
    pandas = pytest.importorskip("pandas")
    if compression == "zst":
        pytest.importorskip("zstandard")
    (tmp_path / "in.jsonl").write_text(lines(ROWS))
    output = tmp_path / f"x.csv.{compression}".rstrip(".")

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
