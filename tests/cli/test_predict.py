"""``spd predict`` on files as people have them: what goes in comes out beside the answers."""

import csv
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from exporters.export import artefact_from_checkpoint
from spd_deploy.cli.main import cli
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.text import Tokenizer, Tokens
from spd_deploy.scale.answer_columns import AnswerColumns
from spd_deploy.scale.answer_formats import AnswerFormat, text_of
from spd_train.data.rows import DataRow
from tests.tiny import tiny_checkpoint

ROWS = (
    {"id": 7, "text": "a great film", "meta": {"source": ["web"]}},
    {"id": 8, "text": "never"},
    {"id": 9, "text": 'a "quoted" text,\nwith a line break', "meta": None},
)
OURS = ("label", "score", "scores", "truncated")


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    """A model of two labels."""
    folder = tmp_path_factory.mktemp("predict")
    return artefact_from_checkpoint(tiny_checkpoint(folder / "c", task="sst2"), folder / "a")


def predict(artefact: Artefact, *words: str | Path, text: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["predict", str(artefact.folder), *map(str, words)], input=text)


def json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def read_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_an_answer_has_the_fields_of_its_row(artefact: Artefact, tmp_path: Path) -> None:
    """Each line begins with its row as it was, kinds of values included, in the file's order."""
    (tmp_path / "in.jsonl").write_text(json_lines(ROWS))

    done = predict(artefact, "--input", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")

    assert done.exit_code == 0, done.output
    answers = read_lines((tmp_path / "out.jsonl").read_text())
    assert [{k: v for k, v in a.items() if k not in OURS} for a in answers] == list(ROWS)
    texts = [row["text"] for row in ROWS]
    alone = read_lines(predict(artefact, *map(str, texts)).stdout)
    for answer, one in zip(answers, alone, strict=True):
        assert answer["label"] == one["label"]
        assert answer["scores"] == pytest.approx(one["scores"], abs=1e-5)


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_table_comes_out_as_a_table(artefact: Artefact, tmp_path: Path, kind: str) -> None:
    """Its columns are there, with label, score and a score for each label behind them."""
    delimiter = {"csv": ",", "tsv": "\t"}[kind]
    rows = [{"id": str(row["id"]), "text": str(row["text"])} for row in ROWS]
    with (tmp_path / f"in.{kind}").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["id", "text"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)

    done = predict(artefact, "--input", tmp_path / f"in.{kind}")

    assert done.exit_code == 0, done.output
    found = list(csv.DictReader(io.StringIO(done.stdout, newline=""), delimiter=delimiter))
    assert [{k: row[k] for k in ("id", "text")} for row in found] == rows
    labels = [f"score_{label}" for label in artefact.task.labels]
    assert list(found[0]) == ["id", "text", "label", "score", "truncated", *labels]
    for row in found:
        assert row["score"] == max((row[label] for label in labels), key=float)
        assert sum(float(row[label]) for label in labels) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "broken",
    ['{"id": 1, "text": " "}', '{"id": 1, "text": "\\u200b"}', "nonsense", "[1]", '{"id": 1}'],
)
def test_a_broken_row_stops_or_is_left_out(artefact: Artefact, tmp_path: Path, broken: str) -> None:
    """Its line is named and nothing written; with --skip-broken-rows the others are answered."""
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(f"{json_lines(ROWS[:1])}{broken}\n{json_lines(ROWS[1:])}")
    words = ("--input", source, "--output", output)

    stopped = predict(artefact, *words)
    left_out = output.exists()
    skipped = predict(artefact, *words, "--skip-broken-rows")

    assert (stopped.exit_code, left_out) == (1, False)
    assert "in.jsonl, line 2" in stopped.stderr
    assert "--skip-broken-rows" in stopped.stderr
    assert skipped.exit_code == 0, skipped.output
    assert "skipped 1 broken row" in skipped.stderr
    assert [answer["id"] for answer in read_lines(output.read_text())] == [7, 8, 9]


def test_each_text_is_tokenised_once(
    artefact: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text is checked for tokens and run with the tokens that were found."""
    seen: Counter[str] = Counter()
    encode, encode_all = Tokenizer.encode, Tokenizer.encode_all

    def counted(self: Tokenizer, text: str, pair: str | None = None) -> Tokens:
        seen[text] += 1
        return encode(self, text, pair)

    def counted_all(self: Tokenizer, texts: Sequence[tuple[str, str | None]]) -> list[Tokens]:
        seen.update(text for text, _ in texts)
        return encode_all(self, texts)

    monkeypatch.setattr(Tokenizer, "encode", counted)
    monkeypatch.setattr(Tokenizer, "encode_all", counted_all)
    texts = ["!?!", "a great film", "..."]
    (tmp_path / "in.jsonl").write_text(json_lines([{"text": text} for text in texts]))

    done = predict(artefact, "--input", tmp_path / "in.jsonl")

    assert done.exit_code == 0, done.output
    assert {text: seen[text] for text in texts} == dict.fromkeys(texts, 1)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_pipe_gives_what_a_file_gives(artefact: Artefact, tmp_path: Path, kind: str) -> None:
    """From standard input to standard output, in the kind that was read."""
    text = json_lines(ROWS[:2]) if kind == "jsonl" else "id,text\n7,a great film\n8,never\n"
    (tmp_path / f"in.{kind}").write_text(text)

    piped = predict(artefact, "--input", "-", "--input-format", kind, "--output", "-", text=text)
    from_file = predict(artefact, "--input", tmp_path / f"in.{kind}")

    assert piped.exit_code == 0, piped.output
    assert piped.stdout == from_file.stdout


def test_errors_of_a_pipe_name_standard_input(artefact: Artefact) -> None:
    """The line is named, and no file that was made on the way."""
    done = predict(artefact, "--input", "-", text='{"text": "good"}\n{"text": ""}\n')
    empty = predict(artefact, "--input", "-", text="")

    assert (done.exit_code, empty.exit_code) == (1, 1)
    assert done.stderr.startswith("spd: stdin.jsonl, line 2: empty text")
    assert empty.stderr.startswith("spd: stdin.jsonl is empty")


def test_no_field_of_a_row_is_lost_to_an_answer(artefact: Artefact) -> None:
    """A row that has a label keeps it; the answer's has another name, which is said."""
    rows = [{"text": "good", "label": "gold", "score": 3}]

    done = predict(artefact, "--input", "-", text=json_lines(rows))

    (answer,) = read_lines(done.stdout)
    assert (answer["label"], answer["score"]) == ("gold", 3)
    assert answer["predicted_label"] in artefact.task.labels
    assert 0 <= answer["predicted_score"] <= 1
    assert "called label, score: the answer's are predicted_label, predicted_score" in done.stderr


def test_scores_have_no_more_digits_than_mean_something(artefact: Artefact) -> None:
    """Six significant ones."""
    (answer,) = read_lines(predict(artefact, "a great film").stdout)

    for score in (answer["score"], *answer["scores"].values()):
        assert score == float(f"{score:.6g}")


def test_a_regression_answers_with_a_number(tmp_path: Path) -> None:
    """There is a score, and no label that says no more than that."""
    checkpoint = tiny_checkpoint(tmp_path / "c", task="stsb")
    regression = artefact_from_checkpoint(checkpoint, tmp_path / "a")

    (answer,) = read_lines(predict(regression, "a man", "a woman").stdout)

    assert set(answer) == {"score", "truncated"}


def test_nothing_that_can_be_used_is_an_error(artefact: Artefact) -> None:
    """A file of broken rows alone gives no empty success."""
    done = predict(artefact, "--input", "-", "--skip-broken-rows", text='{"text": ""}\n')

    assert done.exit_code == 1
    assert "holds no usable rows" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("good", "--input-format", "csv"), "--input-format goes with --input -"),
        (("--input", "x.csv", "--input-format", "csv"), "--input-format goes with --input -"),
        (("good", "--skip-broken-rows"), "--skip-broken-rows goes with --input"),
        (("good", "--output", "out.xlsx"), "answers are not written as .xlsx"),
        (("good", "--output", "out.xlsx.gz"), "answers are not written as .xlsx"),
        (("good", "--output-format", "parquet"), "Parquet is not written to standard output"),
        (("good", "--output", "x.parquet"), "Parquet goes with --input"),
        (("good", "--resume"), "--resume goes with --input"),
        (("--ray", "good"), "--ray goes with --input; its address was read as 'good'"),
        (("--input", "-", "--output", "x.csv", "--resume"), "an input that can be read again"),
        (("--input", "x.csv", "--resume"), "--resume goes with --output"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    artefact: Artefact, words: tuple[str, ...], said: str
) -> None:
    """Before the model is opened, as a wrong command line."""
    done = predict(artefact, *words)

    assert done.exit_code == 2
    assert said in done.stderr


def test_it_needs_no_torch(artefact: Artefact, tmp_path: Path) -> None:
    """With torch and Transformers out of reach a file is answered."""
    (tmp_path / "in.csv").write_text("text\ngood\n")
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from spd_deploy.cli.main import cli; cli(sys.argv[1:])"
    )
    words = ("predict", str(artefact.folder), "--input", str(tmp_path / "in.csv"))

    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("text,label,score,truncated")


# A carriage return alone ends a line to Python's csv; no writer that quotes it is safe of that.
FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"))


@given(st.lists(st.dictionaries(st.sampled_from(("id", "text", "label")), FIELDS), min_size=1))
def test_a_table_reads_back_as_it_was(fields: list[dict[str | int, str]]) -> None:
    """Whatever the fields hold, a CSV reader finds each under its name, and the answers behind."""
    answers = [{"label": "yes", "score": 0.5, "score_no": 0.5} for _ in fields]
    rows = [DataRow(file=Path("x.jsonl"), line=1, fields=one) for one in fields]
    columns = AnswerColumns.of(rows, answers[0], tabular=True)

    text = text_of(AnswerFormat(kind="csv"), columns, rows, answers, first=True)

    found = list(csv.DictReader(io.StringIO(text.decode(), newline="")))
    for row, read in zip(fields, found, strict=True):
        assert {name: read[str(name)] for name in row} == row
        assert (read[columns.names["label"]], read["score_no"]) == ("yes", "0.5")
