"""What ``predict`` takes, what it refuses, and how its answers look."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pytest

import spd_deploy as spd
from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.errors import BadData, BadSetting
from tests.tiny import tiny_model

PAIRS = [("the film was good", "i love it"), ("a bad plot", "the bus was late")]
FIRSTS, SECONDS = [a for a, _ in PAIRS], [b for _, b in PAIRS]
ROWS = [{"text": a, "text_pair": b} for a, b in PAIRS]


@pytest.fixture(scope="module")
def single(
    dense_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[spd.Model]:
    """A model of one text (SST-2)."""
    folder = tmp_path_factory.mktemp("single") / "artefact"
    artefact_from_checkpoint(dense_checkpoint, folder)
    with spd.load(folder, threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def paired(
    block_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[spd.Model]:
    """A model of two texts (MRPC)."""
    folder = tmp_path_factory.mktemp("paired") / "artefact"
    artefact_from_checkpoint(block_checkpoint, folder)
    with spd.load(folder, threads=1) as model:
        yield model


def test_one_text_gives_one_answer(single: spd.Model) -> None:
    """A string gives a label of the task with its probability; all probabilities sum to 1."""
    found = single.predict("the film was good")

    assert found.label in single.labels
    assert found.score == max(found.scores.values()) == found.scores[found.label]
    assert sum(found.scores.values()) == pytest.approx(1)
    assert not found.truncated


@pytest.mark.parametrize(
    "give",
    [
        tuple,
        iter,
        np.array,
        pa.array,
        lambda texts: pa.table({"text": texts}),
        lambda texts: {"text": texts, "other": [1, 2]},
        lambda texts: {"sentence": texts},
        lambda texts: [{"text": text} for text in texts],
        lambda texts: (text for text in texts),
    ],
    ids=["tuple", "iterator", "NumPy", "Arrow", "Arrow table", "dict", "own column", "rows", "gen"],
)
def test_texts_come_in_many_forms(give: Callable[[Any], Any], single: spd.Model) -> None:
    """Each form gives what a list of strings gives, in the same order."""
    assert single.predict(give(FIRSTS)) == single.predict(FIRSTS)


@pytest.mark.parametrize(
    "given",
    [
        (FIRSTS, SECONDS),
        (np.array(PAIRS),),
        (ROWS,),
        ({"text": FIRSTS, "text_pair": SECONDS},),
        ({"#1 String": FIRSTS, "#2 String": SECONDS, "Quality": [0, 1]},),
        (pa.table({"text": FIRSTS, "text_pair": SECONDS}),),
    ],
    ids=["columns", "NumPy", "rows", "dict", "own columns", "Arrow table"],
)
def test_pairs_come_in_many_forms(given: tuple[Any, ...], paired: spd.Model) -> None:
    """Each form gives what a list of tuples gives."""
    assert paired.predict(*given) == paired.predict(PAIRS)


def test_one_pair_gives_one_answer(paired: spd.Model) -> None:
    """Two strings are the pair that a list with one tuple has."""
    assert paired.predict(*PAIRS[0]) == paired.predict(PAIRS[:1])[0]


def test_pandas_columns_and_tables_are_read(paired: spd.Model, single: spd.Model) -> None:
    """Series, data frames and their rows give what lists give, whatever their index is."""
    frame = pandas.DataFrame({"text": FIRSTS, "text_pair": SECONDS}, index=[7, 3])

    assert paired.predict(frame["text"], frame["text_pair"]) == paired.predict(PAIRS)
    assert paired.predict(frame) == paired.predict(PAIRS)
    assert single.predict(frame["text"]) == single.predict(FIRSTS)
    frame["label"] = single.predict(frame["text"]).labels
    assert list(frame["label"]) == single.predict(FIRSTS).labels
    with pytest.raises(BadData, match=r"text 2 of 2 is not a string; got nan \(float\)"):
        single.predict(pandas.Series(["good", float("nan")], dtype=object))


@pytest.mark.parametrize(
    ("texts", "pairs", "said"),
    [
        (["good", ""], None, "text 2 of 2 is empty"),
        (["good", " \t"], None, "text 2 of 2 is empty"),
        (["\u200b"], None, "text 1 of 1 is empty"),
        (["good", None], None, "text 2 of 2 is not a string; got None (NoneType)"),
        ([b"good"], None, "text 1 of 1 is not a string; got b'good' (bytes)"),
        (b"good", None, "these are not texts"),
        (5, None, "these are not texts; got 5 (int)"),
        ([["a", "b", "c"]], None, "text 1 of 1 is not a string"),
        ([("good", "bad")], None, "sst2 reads one text, and text 1 of 1 is a pair"),
        (["good"], ["bad", "dull"], "got 1 texts and 2 pairs"),
        ({"review": ["good"]}, None, "the table has no column 'sentence'; got review"),
        ({"text": ["good"]}, ["bad"], "a table holds the pairs itself"),
    ],
)
def test_what_is_no_text_is_refused(texts: Any, pairs: Any, said: str, single: spd.Model) -> None:
    """One line names the text and what was given; nothing is answered."""
    with pytest.raises(BadData) as refused:
        single.predict(texts, pairs)

    assert said in str(refused.value)


@pytest.mark.parametrize("texts", ["good", ["good"], ("good", "bad"), [{"text": "good"}]])
def test_a_text_without_its_pair_is_refused(texts: Any, paired: spd.Model) -> None:
    """A model of pairs says that the second text is missing."""
    with pytest.raises(BadData, match="mrpc compares two texts, and text 1 of"):
        paired.predict(texts)


def test_no_texts_give_no_answers(single: spd.Model) -> None:
    """An empty list gives empty predictions, which can be shown."""
    found = single.predict([])

    assert (len(found), found.labels, found.scores) == (0, [], [])
    assert repr(found) == "0 predictions"


def test_a_long_text_is_cut_and_says_so(single: spd.Model) -> None:
    """Words past the model's length change nothing, and ``truncated`` tells of them."""
    found = single.predict("good " * 40)

    assert found.truncated
    assert found.scores == single.predict("good " * 80).scores


def test_a_regression_gives_numbers(tmp_path: Path) -> None:
    """There is no label, and the score is the logit itself."""
    from spd_deploy.domain.tasks import task_named

    tiny_model(tmp_path / "model", task=task_named("stsb"))
    with spd.load(tmp_path / "model", threads=1) as model:
        found = model.predict(["good", "bad"])

    assert found.labels == [None, None]
    assert model.labels == ()
    assert open_checkpoint(tmp_path / "model").task.is_regression
    assert "label" not in repr(found)


def test_predictions_are_a_sequence(single: spd.Model) -> None:
    """They can be indexed, cut, counted and turned into rows for a table."""
    found = single.predict(FIRSTS * 10)

    assert len(found) == 20
    assert found[1:3].labels == found.labels[1:3]
    assert found[-1] == found[1]
    assert found.to_json()[0]["label"] == found[0].label
    assert "20 predictions" in repr(found) and "and 10 more" in repr(found)


def test_a_notebook_gets_tables_with_escaped_text(tmp_path: Path) -> None:
    """Labels that are HTML are shown as text, in one answer, in many, and of the model."""
    import json

    from spd_deploy.domain.checkpoint import CONFIG_FILE

    folder = tiny_model(tmp_path / "model")
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["id2label"] = {"0": "<script>", "1": "<b>&"}
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    with spd.load(folder, threads=1) as model:
        pages = [
            model.predict("good")._repr_html_(),
            model.predict(["good"])._repr_html_(),
            model._repr_html_(),
        ]

    for page in pages:
        assert "<script>" not in page and "<b>&" not in page
        assert "&lt;script&gt;" in page or "&lt;b&gt;&amp;" in page
        assert page.startswith("<div>") and page.endswith("</div>")


def test_a_closed_model_answers_no_more(dense_checkpoint: Checkpoint) -> None:
    """After the block it is closed, says so, and may be closed again."""
    with spd.load(dense_checkpoint.folder, threads=1) as model:
        assert repr(model).startswith("model")
    model.close()

    assert model.closed and repr(model).startswith("closed model")
    with pytest.raises(BadSetting, match="the model is closed"):
        model.predict("good")


def test_a_forgotten_model_is_closed(dense_checkpoint: Checkpoint) -> None:
    """The session is closed when the last reference to the model goes."""
    import gc

    model = spd.load(dense_checkpoint.folder, threads=1)
    close = model._close

    del model
    gc.collect()

    assert not close.alive


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"runtime": "onnx"}, "runtime must be one of auto, onnxruntime"),
        ({"runtime": 1}, "openvino:bf16, tensorrt, torch; got 1"),
        ({"device": "tpu"}, "device must be one of cpu, cuda; got 'tpu'"),
        ({"threads": 0}, "threads must be a whole number of 1 or more, up to 1024; got 0"),
        ({"threads": 1.5}, "up to 1024; got 1.5"),
        ({"threads": True}, "up to 1024; got True"),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused(
    settings: dict[str, Any], said: str, dense_checkpoint: Checkpoint
) -> None:
    """The parameter and what is wrong with it are named, in an error of ours."""
    with pytest.raises(BadSetting) as refused:
        spd.load(dense_checkpoint.folder, **settings)

    assert said in str(refused.value)
