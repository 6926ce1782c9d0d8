"""Training on texts in windows: the loss is that of the pooled logits, which is what is served."""

import csv
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForSequenceClassification

import spd_deploy as spd
from serve.open_model import open_served
from spd_deploy.domain.checkpoint import open_checkpoint
from spd_deploy.domain.errors import BadSetting, OptionConflict
from spd_deploy.domain.long_texts import TextWindows, WindowPooling
from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer
from spd_train.data.batching import LabelledTokens, batch_of, by_length
from spd_train.training.distributed import micro_batches
from spd_train.training.finetune import LabelObjective
from spd_train.training.step_batches import parts_within
from tests.tiny import tiny_checkpoint

FILLER = [
    "a",
    "the",
    "this",
    "that",
    "film",
    "movie",
    "train",
    "bus",
    "plot",
    "i",
    "you",
    "we",
    "they",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder with a classifier of two classes."""
    return tiny_checkpoint(tmp_path_factory.mktemp("windows") / "m", task="sst2", layers=1).folder


def reviews(file: Path, rows: int) -> Path:
    """Texts of 24 words whose last one decides."""
    draw = random.Random(0)
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label"])
        for i in range(rows):
            words = [*draw.choices(FILLER, k=23), "great" if i % 2 else "dull"]
            writer.writerow([" ".join(words), "pos" if i % 2 else "neg"])
    return file


@pytest.mark.parametrize("pooling", WindowPooling)
def test_a_batch_has_the_loss_of_its_texts(model: Path, pooling: WindowPooling) -> None:
    """Loss and gradient are those of the texts alone, of their windows' mean or maximum."""
    windows = TextWindows(stride=2, pooling=pooling)
    tokenizer = Tokenizer(model / TOKENIZER_FILE, max_tokens=8).in_windows(windows, pairs=False)
    texts = ["good film", " ".join(FILLER), "bad " * 9, "great"]
    rows = [
        LabelledTokens(tokens=tokenizer.encode(text), label=float(i % 2))
        for i, text in enumerate(texts)
    ]
    truths = [torch.tensor(i % 2) for i in range(len(texts))]
    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    task = open_checkpoint(model).task

    batch = batch_of(rows, pad_id=tokenizer.pad_id, device="cpu")
    loss = LabelObjective(network, task)(batch)["label"]
    loss.backward()
    found = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    network.zero_grad(set_to_none=True)
    losses = []
    for row, truth in zip(rows, truths, strict=True):
        logits = torch.cat(
            [network(torch.tensor([window.ids])).logits for window in row.tokens.windows]
        )
        pooled = logits.mean(0) if pooling is WindowPooling.MEAN else logits.max(0).values
        losses.append(nn.functional.cross_entropy(pooled, truth))
    torch.stack(losses).mean().backward()  # type: ignore[no-untyped-call]

    assert [row.windows for row in rows] == [1, 3, 2, 1]
    assert batch.ids_BS.shape[0] == 7 and batch.step_rows == 4
    expected_loss = float(torch.stack(losses).mean().detach())
    assert float(loss.detach()) == pytest.approx(expected_loss, abs=1e-6)
    expected = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))


@settings(max_examples=100, deadline=None)
@given(
    windows=st.lists(st.integers(1, 16), min_size=1, max_size=40),
    processes=st.integers(1, 3),
    accumulate=st.integers(1, 3),
    most=st.integers(1, 20),
)
def test_no_part_of_a_step_has_more_windows_than_its_share(
    windows: list[int], processes: int, accumulate: int, most: int
) -> None:
    """But a text of many windows, which is a part alone; over all processes each text is one."""
    parts = [
        part
        for rank in range(processes)
        for part in parts_within(
            micro_batches(len(windows), world_size=processes, rank=rank, accumulate=accumulate),
            windows,
            most,
        )
    ]

    assert sorted(row for part in parts for row in part) == list(range(len(windows)))
    if max(windows) > 1:
        assert all(len(part) < 2 or sum(windows[i] for i in part) <= most for part in parts)


def test_a_model_learns_what_is_behind_the_cut(model: Path, tmp_path: Path) -> None:
    """The scores in spd.json are those of spd evaluate with windows; a cut text tells nothing."""
    data = reviews(tmp_path / "reviews.csv", 320)

    def trained(long_texts: str) -> spd.TrainResult:
        return spd.train(
            output=tmp_path / long_texts,
            data=data,
            text_column="text",
            label_column="label",
            model=model,
            pattern="structured",
            max_tokens=16,
            long_texts=long_texts,  # type: ignore[arg-type]
            window_stride=4 if long_texts == "windows" else None,
            teacher_epochs=6,
            teacher_learning_rate=2e-3,
            epochs=2,
            threads=1,
        )

    cut, windows = trained("cut"), trained("windows")
    again = spd.evaluate(
        windows.checkpoint.folder, data=data, split="dev", long_texts="windows", window_stride=4
    )

    accuracy = {id(r): r.checkpoint.scores["sparse"]["accuracy"] or 0.0 for r in (cut, windows)}
    assert accuracy[id(cut)] < 0.8
    assert accuracy[id(windows)] > 0.95
    assert again.scores["accuracy"] == accuracy[id(windows)]
    recipe = windows.checkpoint.recipe
    assert recipe is not None and recipe["windows"]["stride"] == 4
    assert not [note for note in again.notes if "trained on long texts" in note]
    artefact = spd.export(windows.checkpoint.folder, output=tmp_path / "artefact").path
    notes = spd.evaluate(artefact, data=data, split="dev").notes
    assert [note for note in notes if "add --long-texts windows" in note]
    told: list[str] = []
    with open_served(artefact, say=told.append).session:
        assert "here they are cut" in "".join(told)


def test_windows_that_no_model_reads_are_refused_before_training(
    model: Path, tmp_path: Path
) -> None:
    """Options of windows where texts are cut, and a stride as long as a window."""
    data = reviews(tmp_path / "reviews.csv", 40)
    asked: dict[str, Any] = {
        "data": data,
        "text_column": "text",
        "label_column": "label",
        "model": model,
    }

    with pytest.raises(OptionConflict, match="long texts are cut"):
        spd.train(output=tmp_path / "a", **asked, window_stride=4)
    with pytest.raises(BadSetting, match="stride is not smaller than a window"):
        spd.train(
            output=tmp_path / "b", **asked, max_tokens=16, long_texts="windows", window_stride=14
        )
    assert not (tmp_path / "a").exists()


def test_batches_of_scoring_keep_a_text_together(model: Path) -> None:
    """Each is at most as large as asked for, counted in windows; the longest texts are first."""
    tokenizer = Tokenizer(model / TOKENIZER_FILE, max_tokens=8).in_windows(
        TextWindows(), pairs=False
    )
    rows = [
        LabelledTokens(tokens=tokenizer.encode("film " * n), label=0.0) for n in range(1, 30, 2)
    ]

    found = by_length(rows, batch_size=4)

    assert sorted(row for batch in found for row in batch) == list(range(len(rows)))
    assert rows[found[0][0]].windows == max(row.windows for row in rows)
    for batch in found:
        assert len(batch) == 1 or sum(rows[i].windows for i in batch) <= 4
