"""Long texts in windows: every runtime against Transformers' windows, file and evaluation too."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

import spd_deploy as spd
from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadSetting, OptionConflict
from tests.tiny import WORDS

WORD = WORDS.split()
LONG = " ".join(WORD[i * 7 % len(WORD)] for i in range(90))
FULL = " ".join(WORD[:30])  # fills the model
TEXTS = ["the film was good", LONG, LONG[:260], FULL]
PAIRS = [("the film was good", LONG), (LONG, "the bus was late"), ("a good film", "a bus")]
STRIDE = 5
POOLINGS: tuple[Literal["mean", "max"], ...] = ("mean", "max")


@pytest.fixture(scope="module")
def artefacts(
    dense_checkpoint: Checkpoint,
    block_checkpoint: Checkpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """An artefact of single texts and one of pairs."""
    folder = tmp_path_factory.mktemp("windows")
    artefact_from_checkpoint(dense_checkpoint, folder / "single")
    artefact_from_checkpoint(block_checkpoint, folder / "pairs")
    return {name: folder / name for name in ("single", "pairs")}


@pytest.fixture(scope="module")
def single(artefacts: dict[str, Path]) -> Iterator[spd.Model]:
    """A model of one text."""
    with spd.load(artefacts["single"], threads=1) as model:
        yield model


def oracle(checkpoint: Checkpoint, texts: Sequence[tuple[str, ...]], pooling: str) -> Any:
    """Scores ``[B, C]`` and counts: Transformers' windows and model, pooled in NumPy."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint.folder)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint.folder).eval()
    rows, counts = [], []
    for both in texts:
        longer = "only_second" if len(both) == 2 and len(both[1]) >= len(both[0]) else "only_first"
        windows = tokenizer(
            *both,
            truncation=longer,
            max_length=checkpoint.max_tokens,
            stride=STRIDE,
            return_overflowing_tokens=True,
            padding=True,
            return_tensors="pt",
        )
        windows.pop("overflow_to_sample_mapping")
        with torch.no_grad():
            logits_WC = model(**windows).logits.double().numpy()
        pooled_C = logits_WC.mean(0) if pooling == "mean" else logits_WC.max(0)
        weights_C = np.exp(pooled_C - pooled_C.max())
        rows.append(weights_C / weights_C.sum())
        counts.append(len(logits_WC))
    return np.stack(rows), counts


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("kind", ["single", "pairs"])
def test_every_runtime_pools_the_windows_of_transformers(
    artefacts: dict[str, Path],
    dense_checkpoint: Checkpoint,
    block_checkpoint: Checkpoint,
    kind: str,
    runtime: str,
) -> None:
    """Scores and counts are those of ``return_overflowing_tokens`` and the dense model."""
    checkpoint = dense_checkpoint if kind == "single" else block_checkpoint
    texts: Any = TEXTS if kind == "single" else PAIRS
    path = checkpoint.folder if runtime == "torch" else artefacts[kind]
    given = [(text,) if kind == "single" else text for text in texts]

    with spd.load(path, runtime=runtime, threads=1) as model:
        for pooling in POOLINGS:
            expected, counts = oracle(checkpoint, given, pooling)
            found = model.predict(
                texts, long_texts="windows", window_stride=STRIDE, window_pooling=pooling
            )
            scores = [[answer.scores[label] for label in model.labels] for answer in found]
            np.testing.assert_allclose(scores, expected, atol=2e-4)
            assert [answer.windows for answer in found] == counts and max(counts) > 3
            assert not any(answer.truncated for answer in found)


def test_a_text_that_fits_keeps_its_bits(single: spd.Model) -> None:
    """Its answer is that of a model that cuts, which tells no number of windows."""
    for text in (TEXTS[0], FULL):
        cut, windowed = single.predict(text), single.predict(text, long_texts="windows")
        assert (cut.scores, cut.windows) == (windowed.scores, None)
        assert windowed.windows == 1


def test_what_no_window_has_is_told(single: spd.Model) -> None:
    """One window is the cut text, and says so; more of them read on."""
    cut = single.predict(LONG)
    one = single.predict(LONG, long_texts="windows", max_windows=1)
    all_read = single.predict(LONG, long_texts="windows")

    assert (one.scores, one.truncated, one.windows) == (cut.scores, True, 1)
    assert not all_read.truncated and all_read.scores != cut.scores


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_file_has_the_answers_of_texts_in_memory(
    artefacts: dict[str, Path], single: spd.Model, tmp_path: Path, suffix: str
) -> None:
    """Rows, scores and windows are those of ``predict``, and the cost tells the windows."""
    import pandas

    given, output = tmp_path / "texts.jsonl", tmp_path / f"answers.{suffix}"
    given.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    expected = single.predict(TEXTS, long_texts="windows")

    cost = spd.predict(
        artefacts["single"], input=given, output=output, long_texts="windows", threads=1
    )

    jsonl = suffix == "jsonl"
    found = pandas.read_json(output, lines=True) if jsonl else pandas.read_parquet(output)
    assert list(found["windows"]) == [answer.windows for answer in expected]
    assert list(found["label"]) == expected.labels
    np.testing.assert_allclose(list(found["score"]), expected.scores, rtol=1e-5)
    assert cost.windows == sum(found["windows"])
    assert f"4 rows in {cost.windows} windows" in str(cost)


def test_an_evaluation_scores_pooled_answers(
    artefacts: dict[str, Path], single: spd.Model, tmp_path: Path
) -> None:
    """Its accuracy is that of the windows' answers: labels that are those score 1."""
    expected = single.predict(TEXTS, long_texts="windows", window_pooling="max")
    numbers = [single.labels.index(label or "") for label in expected.labels]
    lines = [f"{text}\t{number}" for text, number in zip(TEXTS, numbers, strict=True)]
    (tmp_path / "dev.tsv").write_text("\n".join(["sentence\tlabel", *lines, ""]))

    found = spd.evaluate(
        artefacts["single"],
        data=tmp_path,
        long_texts="windows",
        window_pooling="max",
        threads=1,
    )

    assert found.scores["accuracy"] == 1.0
    assert any("2 of 4 (50.0 %) are read in windows" in note for note in found.notes)


def test_comparison_and_calibration_score_pooled_answers(
    artefacts: dict[str, Path], dense_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Both see the accuracy and calibration that an evaluation of the same windows finds."""
    texts = [" ".join(WORD[i * k % len(WORD)] for k in range(1, 90)) for i in range(1, 61)]
    lines = [f"{text}\t{i // 2 % 2}" for i, text in enumerate(texts)]
    (tmp_path / "dev.tsv").write_text("\n".join(["sentence\tlabel", *lines, ""]))
    options: Any = {"data": tmp_path, "long_texts": "windows", "window_stride": 3, "threads": 1}
    path = dense_checkpoint.folder
    expected = spd.evaluate(path, **options)

    compared = spd.compare(path, artefacts["single"], **options).answers
    to = tmp_path / "to"
    calibrated = spd.calibrate(path, output=to, threshold_for="*:f1", **options).calibration

    cut = spd.evaluate(path, data=tmp_path, threads=1)
    assert expected.calibration is not None
    assert cut.calibration is not None
    assert expected.calibration.brier != pytest.approx(cut.calibration.brier, abs=1e-7)
    assert compared.calibration is not None
    for found in (*compared.calibration, calibrated.before):
        assert found.brier == pytest.approx(expected.calibration.brier, abs=1e-6)
    assert compared.dense["accuracy"] == expected.scores["accuracy"]

    after = spd.evaluate(to, data=tmp_path, threads=1).calibration  # in windows, by itself
    assert after is not None
    assert calibrated.after is not None
    assert after.brier == pytest.approx(calibrated.after.brier, abs=1e-5)


def test_windows_that_do_not_go_together_are_refused(single: spd.Model) -> None:
    """A stride as long as a window, an option of windows where texts are cut, an unknown word."""
    with pytest.raises(BadSetting, match="give a stride of 29 or less"):
        single.predict(LONG, long_texts="windows", window_stride=30)
    with pytest.raises(OptionConflict, match="add --long-texts windows"):
        single.predict(LONG, max_windows=3)
    with pytest.raises(BadSetting, match="long_texts must be one of cut, windows"):
        single.predict(LONG, long_texts="split")  # type: ignore[call-overload]
