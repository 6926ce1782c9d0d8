"""Rows of files as they come: dialects, compression, and files that are not what they are named."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from spd_deploy.domain.errors import BadData
from spd_train.data.read_rows import read_rows

FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


def zstandard(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard,
}


def fields_of(file: Path, *, quotes: bool = True) -> list[dict[str | int, object]]:
    return [dict(row.fields) for row in read_rows(file, quotes=quotes)]


@pytest.mark.parametrize("delimiter", [",", "\t"], ids=["csv", "tsv"])
@given(rows=st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=5))
def test_what_was_written_with_quotes_is_read(
    tmp_path_factory: pytest.TempPathFactory, delimiter: str, rows: list[tuple[str, str]]
) -> None:
    """Quotes, delimiters and line breaks in fields come back as the csv module wrote them."""
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b"), *rows])
    file = tmp_path_factory.mktemp("rows") / ("x.csv" if delimiter == "," else "x.tsv")
    file.write_bytes(written.getvalue().encode())

    assert fields_of(file) == [{"a": a, "b": b} for a, b in rows]


def test_glues_files_have_no_quoting(tmp_path: Path) -> None:
    """The same TSV file holds quotes as characters where it is read as GLUE's."""
    file = tmp_path / "x.tsv"
    file.write_text('a\tb\n"x"\t"y"\n')

    assert fields_of(file) == [{"a": "x", "b": "y"}]
    assert fields_of(file, quotes=False) == [{"a": '"x"', "b": '"y"'}]


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "ndjson", "json"])
def test_compressed_text_is_read(tmp_path: Path, kind: str, suffix: str) -> None:
    """Each kind of text, under each compression, gives the same rows; a byte-order mark goes."""
    texts = {"csv": "a,b\n1,x\n", "tsv": "a\tb\n1\tx\n"}
    text = "\ufeff" + texts.get(kind, '{"a": "1", "b": "x"}\n')
    file = tmp_path / f"rows.{kind}{suffix}"
    file.write_bytes(PACKERS[suffix](text.encode()))

    assert fields_of(file) == [{"a": "1", "b": "x"}]


def test_parquet_is_read(tmp_path: Path) -> None:
    """Texts, numbers and lists come as they are, and NaN as a value that is missing."""
    table = {"a": ["x", None], "n": [1, 2], "f": [0.5, float("nan")], "l": [["p"], []]}
    parquet.write_table(pa.table(table), tmp_path / "x.parquet")

    rows = list(read_rows(tmp_path / "x.parquet"))

    assert [dict(row.fields) for row in rows] == [
        {"a": "x", "n": 1, "f": 0.5, "l": ["p"]},
        {"a": None, "n": 2, "f": None, "l": []},
    ]
    assert rows[1].place.endswith("x.parquet, row 2")


def test_parquet_text_that_is_not_utf8_is_a_broken_row(tmp_path: Path) -> None:
    """The row is named, and the others are read."""
    texts = pa.array([b"ok", b"\xff", b"fine"]).view(pa.string())
    parquet.write_table(pa.table({"a": texts}), tmp_path / "x.parquet")

    rows = list(read_rows(tmp_path / "x.parquet"))

    assert [row.fault is None for row in rows] == [True, False, True]
    assert rows[2].fields == {"a": "fine"}


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    """The csv module's own limit of 131,072 characters is none here."""
    (tmp_path / "x.csv").write_text(f'a,b\n"{"x" * 300_000}",y\n')

    assert fields_of(tmp_path / "x.csv") == [{"a": "x" * 300_000, "b": "y"}]


def test_an_open_quote_loses_no_row_but_its_own(tmp_path: Path) -> None:
    """What a quote that nothing closes would swallow is read by itself."""
    sound = [f"t{i},x" for i in range(50)]
    (tmp_path / "x.csv").write_text("\n".join(["a,b", *sound, '"open,x', *sound, '"c",x']) + "\n")

    rows = list(read_rows(tmp_path / "x.csv"))

    assert [row.line for row in rows if row.fault is not None] == [52]
    assert len(rows) == 102 and rows[-1].fields["a"] == "c"


def test_the_rest_of_a_broken_row_is_no_row(tmp_path: Path) -> None:
    """A line that ends a field which was broken before is not taken for a text."""
    (tmp_path / "x.csv").write_text('a,b\n"one\ntwo"x,1\nfine,2\n')

    sound = [row for row in read_rows(tmp_path / "x.csv") if row.fault is None]

    assert [row.fields["a"] for row in sound] == ["fine"]


ROWS = "text,label\na,b\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", b"", "x.csv is empty"),
        ("x.csv", b"\n \n", "x.csv is empty"),
        ("x.csv.gz", gzip.compress(b"", mtime=0), "x.csv.gz is empty"),
        ("x.csv", ROWS.replace(",", ";").encode(), "separated by semicolons, not by commas"),
        ("x.csv", b'"text";"label"\n"a";"b"\n', "separated by semicolons, not by commas"),
        ("x.csv", ROWS.replace(",", "\t").encode(), "separated by tabs.* name it .tsv"),
        ("x.csv", ROWS.replace(",", "|").encode(), "separated by bars, not by commas"),
        ("x.tsv", ROWS.encode(), "separated by commas, not by tabs.* name it .csv"),
        ("x.json", b'[{"text": "a"}]', "one JSON array"),
        ("x.jsonl", b'[\n  {"text": "a"}\n]', "one JSON array"),
        ("x.json", b'{"text": {"0": "a", "1": "b"}, "label": {"0": 1}}', "one JSON object"),
        ("x.json", b'{"data": [{"text": "a"}]}', "one JSON object, not JSON Lines"),
        ("x.jsonl", b'{\n  "text": "a",\n  "label": "b"\n}\n', "one JSON object"),
        ("x.csv", b'{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n', "JSON Lines, not CSV"),
        ("x.tsv", b'{"text": "a"}\n', "is JSON Lines, not TSV; name it .jsonl"),
        ("x.csv", b'[{"text": "a"}]', "one JSON array, not CSV"),
        ("x.jsonl", ROWS.encode(), "a table, not JSON Lines; got .*'text,label'; name it .csv"),
        ("x.json", ROWS.replace(",", "\t").encode(), "a table, not JSON Lines.* name it .tsv"),
        ("x.csv", b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS.*git lfs pull"),
        ("x.parquet", b"version https://git-lfs.github.com/spec", "not a Parq.* got a pointer of"),
        ("x.csv", b"<!DOCTYPE html>\n<html>", "is a web page"),
        ("x.csv", b"sep=,\n" + ROWS.encode(), "Excel's sep=.*remove that line"),
        ("x.csv", ROWS.encode("utf-32"), "is UTF-32 text"),
        ("x.xlsx", b"PK\x03\x04", "'.xlsx', it is a zip file or an Excel workbook"),
        ("x.csv", b"PK\x03\x04", "is a zip file or an Excel workbook"),
        ("x.xls", b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
        ("x.csv", ROWS.encode("utf-16"), "is UTF-16 text"),
        ("x.csv", gzip.compress(ROWS.encode(), mtime=0), "compressed by gzip; add .gz to its name"),
        ("x.csv", zstandard(ROWS.encode()), "compressed by Zstandard; add .zst"),
        ("x.csv.gz", ROWS.encode(), "does not decompress"),
        ("x.csv.gz", gzip.compress(ROWS.encode() * 9, mtime=0)[:-12], "does not decompress"),
        ("x.csv.bz2", b"BZh9nonsense", "cannot read|does not decompress"),
        ("x.csv.xz", b"nonsense", "does not decompress"),
        ("x.csv.zst", b"nonsense", "does not decompress"),
        ("x.txt", b"a\n", "of a kind that spd does not read; got the suffix '.txt'"),
        ("x.parquet", ROWS.encode(), "x.parquet is not a Parquet file"),
        ("x.parquet", b"", "x.parquet is not a Parquet file; got an empty file"),
        ("x.parquet", b"PAR1nonsensePAR1", "x.parquet is damaged"),
        ("x.csv", b"te\xffxt,label\na,b\n", "line 1: not UTF-8; got byte 0xff"),
    ],
)
def test_a_file_is_named_as_what_it_is(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    """What cannot be read is refused for its own reason, with what to do, in one line."""
    (tmp_path / name).write_bytes(content)

    with pytest.raises(BadData, match=said) as caught:
        list(read_rows(tmp_path / name))

    assert str(tmp_path / name) in str(caught.value) and caught.value.fix


@pytest.mark.parametrize(
    "content",
    [
        b'{"text": "a"}',
        b'{"text": "a", "tags": ["b"]}\n{"text"',
        b'{"text": {}}\n{}',
        b'oh, no\n{"text": "a"}',
        b'"a, b"',
    ],
)
def test_json_lines_may_hold_anything(tmp_path: Path, content: bytes) -> None:
    """A file of one row, a list in a row and a broken row do not make it one document."""
    (tmp_path / "x.jsonl").write_bytes(content)

    assert len(list(read_rows(tmp_path / "x.jsonl"))) == len(content.split(b"\n"))


def test_a_folder_is_named_as_one(tmp_path: Path) -> None:
    """A folder in the place of a file is not called a file of another kind."""
    (tmp_path / "texts").mkdir()

    with pytest.raises(BadData, match="is a folder, and a file is needed; name a file in it"):
        list(read_rows(tmp_path / "texts"))


def test_a_missing_file_is_offered_one_of_a_like_name(tmp_path: Path) -> None:
    """A slip of the hand is mended in the error; nothing far from it is offered."""
    (tmp_path / "reviews.csv").write_text(ROWS)

    with pytest.raises(BadData, match=r"no such file; did you mean .*reviews\.csv\?"):
        list(read_rows(tmp_path / "review.csv"))
    with pytest.raises(BadData, match="no such file; check the path"):
        list(read_rows(tmp_path / "tickets.csv"))


def test_json_numbers_are_no_constants_of_python(tmp_path: Path) -> None:
    """NaN, which Python writes and JSON does not have, makes its row a broken one."""
    (tmp_path / "x.jsonl").write_text(json.dumps({"a": float("nan")}) + '\n{"a": 1}\n')

    rows = list(read_rows(tmp_path / "x.jsonl"))

    assert rows[0].fault is not None and rows[0].fault.kind == "not JSON"
    assert rows[1].fields == {"a": 1}
