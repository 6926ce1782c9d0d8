"""Examples from files with the traps that real files have."""

import json
import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from spd_deploy.domain.errors import BadData
from spd_deploy.domain.tasks import TASKS, own_task
from spd_deploy.domain.text import Tokenizer
from spd_deploy.sessions.checkpoint_tokenizer import opener_of
from spd_train.data.examples import Example
from spd_train.data.folders import in_glue_layout
from spd_train.data.read_split import read_split
from spd_train.data.splits import read_data
from tests.tiny import tiny_model

MRPC = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
OWN = own_task(text_column="text", pair_column=None, label_column="label", labels=("bad", "good"))


def write(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_bytes(content.encode())
    return folder


def test_marks_and_quotes_are_read_as_they_are(tmp_path: Path) -> None:
    """A byte-order mark is no part of a column's name, and quotes are plain characters."""
    folder = write(tmp_path, "train.tsv", MRPC + '1\t5\t6\t"Hi, he said\the " left\n')

    found = read_split(TASKS["mrpc"], folder, "train")

    assert found == {"train": [Example(text='"Hi, he said', pair='he " left', label=1)]}


def test_a_file_without_header_or_last_newline_is_whole(tmp_path: Path) -> None:
    """CoLA's first row is a row, and its last one counts though no newline ends it."""
    folder = write(tmp_path, "dev.tsv", "gj04\t1\t\tHe ran.\ngj04\t0\t*\tHe ran ran.")

    found = read_split(TASKS["cola"], folder, "dev")["dev"]

    assert [(e.text, e.label) for e in found] == [("He ran.", 1), ("He ran ran.", 0)]


def test_only_a_line_feed_ends_a_row(tmp_path: Path) -> None:
    """Unicode's other line ends stay inside their text, and Windows' carriage return goes."""
    folder = write(tmp_path, "train.tsv", "sentence\tlabel\r\none\u2028two\x0bthree\t1\r\n")

    assert read_split(TASKS["sst2"], folder, "train")["train"][0].text == "one\u2028two\x0bthree"


def test_mnli_has_two_dev_files(tmp_path: Path) -> None:
    """Matched and mismatched come apart, by file."""
    header = "index\tsentence1\tsentence2\tgold_label\n"
    write(tmp_path, "dev_matched.tsv", header + "0\ta\tb\tneutral\n")
    write(tmp_path, "dev_mismatched.tsv", header + "0\ta\tb\tcontradiction\n")

    found = read_split(TASKS["mnli"], tmp_path, "dev")

    assert {name: rows[0].label for name, rows in found.items()} == {
        "dev_matched": 1,
        "dev_mismatched": 2,
    }


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1\t5\t6\tonly four", "another number of fields"),
        ("1\t5\t6\ta\tb\tc", "another number of fields"),
        ("2\t5\t6\ta\tb", "unknown label"),
        ("1\t5\t6\t\tb", "empty text"),
        ("", "another number of fields"),
    ],
)
def test_a_broken_row_is_named_by_file_and_line(tmp_path: Path, row: str, reason: str) -> None:
    """The error says which file, which line and why."""
    folder = write(tmp_path, "train.tsv", MRPC + f"1\t5\t6\ta\tb\n{row}\n0\t1\t2\tc\td\n")

    with pytest.raises(BadData, match=r"train\.tsv, line 3: ") as caught:
        read_split(TASKS["mrpc"], folder, "train")

    assert reason in str(caught.value)


def test_broken_rows_may_be_skipped_and_are_told_of(tmp_path: Path) -> None:
    """Skipping leaves the sound rows and says how many were not."""
    folder = write(tmp_path, "train.tsv", MRPC + "1\t5\t6\ta\tb\nbroken\n0\t1\t2\tc\td\n")
    told: list[str] = []

    found = read_split(TASKS["mrpc"], folder, "train", skip_broken=True, note=told.append)

    assert [e.text for e in found["train"]] == ["a", "c"]
    assert "1 broken row" in told[0] and "line 3" in told[0]


def test_every_kind_of_broken_row_is_skipped_and_counted(tmp_path: Path) -> None:
    """Rows that are no JSON, no object, no UTF-8 or no text are left out, each kind with a line."""
    broken = (
        b"nonsense", b"[1]", b'{"text": "\xff", "label": "bad"}',
        b'{"text": ["a"], "label": "bad"}',
        b'{"text": "a", "label": ["bad", "good"]}', b'{"text": "\\ud83d", "label": "bad"}',
        b'{"text": "a"}', b'{"text": " ", "label": "bad"}', b'{"text": "a", "label": null}',
        b'{"text": "a", "text": "b", "label": "bad"}', b'{"text": "a", "label": "ugly"}',
        b'{"text": {"a": 1}, "label": "bad"}', b"nonsense",
    )  # fmt: skip
    sound = b'{"text": "a", "label": "good"}'
    (tmp_path / "train.jsonl").write_bytes(b"\n".join([sound, *broken, sound]))
    told: list[str] = []

    found = read_split(OWN, tmp_path, "train", skip_broken=True, note=told.append)["train"]

    assert len(found) == 2
    (line,) = told
    assert f"skipped {len(broken)} broken rows" in line
    assert f"not JSON: 2, first {tmp_path / 'train.jsonl'}, line 2;" in line
    for number in range(2, 2 + len(broken) - 1):
        assert re.search(rf": 1, first [^;]*, line {number}\b|: 2, first [^;]*, line 2\b", line)


def test_a_broken_row_is_named_where_it_is_not_skipped(tmp_path: Path) -> None:
    """Half a surrogate pair has its line and the way past it in the error, as other faults do."""
    folder = write(tmp_path, "train.jsonl", '{"text": "\\ud83d", "label": "bad"}\n')

    with pytest.raises(BadData, match=r"line 1: half of a surrogate pair.*--skip-broken-rows"):
        read_split(OWN, folder, "train", skip_broken=False)


@pytest.mark.parametrize(
    "header", ["text,label,label", "text,text,label"], ids=["label twice", "text twice"]
)
def test_a_column_that_is_read_may_not_stand_twice(tmp_path: Path, header: str) -> None:
    """Neither of the two is taken; a column that is not read may stand there twice."""
    with pytest.raises(BadData, match=r"train\.csv: column '\w+' occurs twice"):
        read_split(OWN, write(tmp_path, "train.csv", f"{header}\na,good,bad\n"), "train")

    folder = write(tmp_path, "train.csv", "text,label,x,x\na,good,1,2\n")
    assert read_split(OWN, folder, "train") == {"train": [Example(text="a", label=1)]}


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    """Neither is taken silently; both are named."""
    write(tmp_path, "train.csv", "text,label\na,good\n")
    write(tmp_path, "train.jsonl", '{"text": "b", "label": "bad"}\n')

    with pytest.raises(BadData, match=r"2 files for train; got train\.csv, train\.jsonl"):
        read_split(OWN, tmp_path, "train")


def test_spaces_around_a_label_are_no_part_of_it(tmp_path: Path) -> None:
    """A label with spaces is the label without."""
    folder = write(tmp_path, "train.csv", "text,label\na, good \nb,bad\n")

    assert [e.label for e in read_split(OWN, folder, "train")["train"]] == [1, 0]


GLUE_HEADS = {
    "cola": "gj04\t1\t\tHe ran.\n" * 2,
    "sst2": "sentence\tlabel\nfine\t1\n",
    "mrpc": MRPC + "1\t5\t6\ta\tb\n",
    "stsb": "index\tsentence1\tsentence2\tscore\n1\ta\tb\t2.5\n",
    "rte": "index\tsentence1\tsentence2\tlabel\n1\ta\tb\tentailment\n",
    "wnli": "index\tsentence1\tsentence2\tlabel\n1\ta\tb\t1\n",
}


@pytest.mark.parametrize("task", GLUE_HEADS)
@pytest.mark.parametrize("file", GLUE_HEADS)
def test_another_tasks_file_is_named_as_that(tmp_path: Path, task: str, file: str) -> None:
    """Each GLUE task reads its own file, and says of another's whose it is."""
    folder = write(tmp_path, "train.tsv", GLUE_HEADS[file])

    if task == file:
        assert read_split(TASKS[task], folder, "train")["train"]
        return
    with pytest.raises(BadData) as caught:
        read_split(TASKS[task], folder, "train", skip_broken=False)
    assert file in str(caught.value).replace("rte or wnli", file)


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path: Path) -> None:
    """The line of the first bad byte is in the error."""
    (tmp_path / "train.tsv").write_bytes(b"sentence\tlabel\ngood\t1\nbad \xff\t0\n")

    with pytest.raises(BadData, match=r"line 3: not UTF-8"):
        read_split(TASKS["sst2"], tmp_path, "train")


def test_a_regression_needs_numbers(tmp_path: Path) -> None:
    """A score that is no finite number is a broken row."""
    folder = write(tmp_path, "train.tsv", "sentence1\tsentence2\tscore\na\tb\tnan\n")

    with pytest.raises(BadData, match="line 2: the label is not a number"):
        read_split(TASKS["stsb"], folder, "train")


def test_a_missing_file_points_to_where_it_may_be(tmp_path: Path) -> None:
    """Given GLUE's folder instead of the task's, the error names the folders below."""
    (tmp_path / "MRPC").mkdir()
    write(tmp_path / "MRPC", "train.tsv", MRPC)

    with pytest.raises(BadData, match=r"train\.tsv is missing") as caught:
        read_split(TASKS["mrpc"], tmp_path, "train")

    assert "MRPC" in caught.value.fix
    with pytest.raises(BadData, match="no such data folder"):
        read_split(TASKS["mrpc"], tmp_path / "nowhere", "train")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.csv", 'id,text,label\n1,"He said ""no"",\nand left.",good\n2,Dull.,bad\n'),
        ("train.jsonl", '{"text": "He said \\"no\\",\\nand left.", "label": "good"}\n\n'
                        '{"label": "bad", "text": "Dull."}\n'),
    ],
)  # fmt: skip
def test_own_files_are_read_by_column(tmp_path: Path, name: str, content: str) -> None:
    """CSV with its quoting and JSONL give the same rows."""
    found = read_split(OWN, write(tmp_path, name, content), "train")["train"]

    assert found == [
        Example(text='He said "no",\nand left.', label=1),
        Example(text="Dull.", label=0),
    ]


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("train.csv", 'text,label\n"a\nb",good\n"x,bad\n', "line 4"),
        ("train.csv", "text,label\na,good\nb,c,bad\n", "line 3"),
        ("train.jsonl", '{"text": "a", "label": "good"}\n{"text": \n', "line 2"),
        ("train.jsonl", '["a", "good"]\n', "line 1"),
        ("train.jsonl", '{"text": "a"}\n', "line 1: no column 'label'"),
        ("train.csv", "words,label\na,good\n", "train.csv: no column 'text'"),
    ],
)
def test_a_broken_own_file_is_named_by_line(
    tmp_path: Path, name: str, content: str, place: str
) -> None:
    """Bad quoting, bad JSON and missing columns are found where they are."""
    with pytest.raises(BadData, match=place):
        read_split(OWN, write(tmp_path, name, content), "train")


def test_a_missing_column_says_which_the_task_reads(tmp_path: Path) -> None:
    """The remedy is the names of the columns, since no option of evaluate takes any."""
    folder = write(tmp_path, "dev.csv", "words,label\na,good\n")

    with pytest.raises(BadData, match=r"as those of task \w+: text, label"):
        read_split(OWN, folder, "dev")


def test_a_tenth_is_held_out_where_there_is_no_dev_file(tmp_path: Path) -> None:
    """Own data in one file is measured on rows that are not trained on, the same at every call."""
    rows = "".join(f"text {i},{'good' if i % 2 else 'bad'}\n" for i in range(50))
    file = write(tmp_path, "reviews.csv", "text,label\n" + rows) / "reviews.csv"

    data, again = read_data(OWN, file), read_data(OWN, file)

    (held,) = data.dev.values()
    assert len(held) == 5 and len(data.train) == 45
    assert not {e.text for e in held} & {e.text for e in data.train}
    assert data.sha256 == again.sha256


@pytest.mark.glue
@pytest.mark.parametrize(
    ("task", "folder", "train", "dev"),
    [
        ("cola", "CoLA", 8551, 1043),
        ("sst2", "SST-2", 67349, 872),
        ("mrpc", "MRPC", 3668, 408),
        ("rte", "RTE", 2490, 277),
        ("stsb", "STS-B", 5749, 1500),
    ],
)
def test_real_glue_files_are_read_whole(
    glue: Path, task: str, folder: str, train: int, dev: int
) -> None:
    """Every row of the official files is read, as many as are published."""
    found = read_data(TASKS[task], glue / folder)

    assert len(found.train) == train
    assert {name: len(rows) for name, rows in found.dev.items()} == {"dev": dev}


def test_a_file_in_glues_layout_is_known_by_its_columns(tmp_path: Path) -> None:
    """Its quotes are characters; another TSV file for the same task may quote its fields."""
    glue = write(tmp_path, "dev.tsv", MRPC + "1\t5\t6\ta\tb\n") / "dev.tsv"
    own = write(tmp_path, "own.tsv", "text\ttext_pair\na\tb\n") / "own.tsv"

    assert in_glue_layout(TASKS["mrpc"], glue) and not in_glue_layout(TASKS["mrpc"], own)
    assert not in_glue_layout(OWN, glue)


@pytest.mark.parametrize(
    "text", ["\u200b", "\0", "\u00ad", "\ue000", "\u0301", "\ufffd", "\x7f \u2060"]
)
def test_a_text_without_a_token_is_a_broken_row(tmp_path: Path, text: str) -> None:
    """Named by line where the tokenizer gives its special tokens alone, skipped and counted."""
    folder = tiny_model(tmp_path / "m")
    opener = opener_of(folder, max_tokens=16)
    only_special = AutoTokenizer.from_pretrained(folder)("")["input_ids"]
    assert AutoTokenizer.from_pretrained(folder)(text)["input_ids"] == only_special
    rows = [{"text": t, "label": "bad"} for t in ("dull", text, "!")]
    file = tmp_path / "reviews.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    told: list[str] = []

    with pytest.raises(BadData, match=r"line 2: empty text: the tokenizer drops all its char"):
        read_split(OWN, file, "train", skip_broken=False, open_tokenizer=opener)
    found = read_split(
        OWN, file, "train", skip_broken=True, note=told.append, open_tokenizer=opener
    )

    assert [e.text for e in found["reviews"]] == ["dull", "!"]
    (note,) = told
    assert "skipped 1 broken row: empty text: the tokenizer drops" in note and "line 2" in note


def test_no_tokenizer_is_opened_for_texts_with_letters(tmp_path: Path) -> None:
    """Files are read before the model is, where no text is in doubt."""
    write(tmp_path, "train.csv", "text,label\na,bad\nb 1,good\n")

    def refuse() -> Tokenizer:
        raise AssertionError

    assert len(read_split(OWN, tmp_path, "train", open_tokenizer=refuse)["train"]) == 2


def test_groups_are_spelled_as_in_a_csv_file(tmp_path: Path) -> None:
    """Nothing is an empty group, true is true, and a list is a broken row."""
    rows = [{"text": "a", "label": "good", "source": value} for value in (None, True, 3, " x ")]
    folder = write(tmp_path, "dev.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    (examples,) = read_split(OWN, folder, "dev", group_column="source").values()

    assert [one.group for one in examples] == ["", "true", "3", "x"]
    write(tmp_path, "dev.jsonl", json.dumps({**rows[0], "source": [1]}) + "\n")
    with pytest.raises(BadData, match="line 1: column 'source' holds a list"):
        read_split(OWN, folder, "dev", group_column="source")
