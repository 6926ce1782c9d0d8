"""Training on texts in windows: the loss is that of the pooled logits, which a server answers with.

The oracle runs every window alone, without padding, and pools with NumPy's functions or torch's.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import spd_deploy as spd
from spd_deploy.cli.inputs.train_data import windows_of_training
from spd_deploy.domain.checkpoint import WEIGHTS_FILE, open_checkpoint
from spd_deploy.domain.errors import BadSetting, Interrupted, OptionConflict
from spd_deploy.domain.long_texts import TextWindows, WindowPooling
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.tasks import Task, own_task
from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer
from spd_deploy.domain.window_pooling import pooled_rows
from spd_deploy.sessions.checkpoint_tokenizer import tokenizer_as_trained
from spd_train.config import LossRecipe
from spd_train.data.augment import mix_pairs
from spd_train.data.batching import (
    LabelledTokens,
    batch_of,
    by_length,
    labels_tensor,
    tokenise,
    window_counts,
)
from spd_train.data.examples import Example
from spd_train.model import load_classifier
from spd_train.run import run
from spd_train.setup import calibration_on
from spd_train.training.distil import Objective
from spd_train.training.finetune import LabelObjective
from spd_train.training.losses import HiddenVariance
from spd_train.training.scoring import logits_of
from tests.train.runs import FP32, QUICK, TASK, StopAfter, config_for, grafted, shaken

TEXTS = (
    "the film was good and the plot was never dull but the ending was bad",
    "a good film",
    "it was slower than the train and the bus , but they like it !",
    "bad",
)
PAIRS = (("a good film", TEXTS[0]), (TEXTS[2], "the plot was dull"), ("a bus", "a train"))
POOLINGS = tuple(WindowPooling)
MAX_TOKENS = 9
COLUMNS: dict[str, Any] = {"text_column": "text", "pair_column": None, "label_column": "label"}
TASKS: dict[str, tuple[Task, list[Any]]] = {
    "one label": (TASK, [1, 0, 0, 1]),
    "soft labels": (TASK, [(0.3, 0.7), (1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]),
    "several labels": (
        own_task(labels=("a", "b"), separator="|", **COLUMNS),
        [(1.0, 0.0), (1.0, 1.0), (0.0, 0.0), (0.0, 1.0)],
    ),
}


def rows_in_windows(
    folder: Path,
    pooling: WindowPooling = WindowPooling.MEAN,
    labels: Sequence[Any] = (1, 0, 0, 1),
    texts: Sequence[Any] = TEXTS,
) -> list[LabelledTokens]:
    """The texts with their labels, in windows of nine tokens of which two neighbours share two."""
    pairs = not isinstance(texts[0], str)
    tokenizer = Tokenizer(folder / TOKENIZER_FILE, max_tokens=MAX_TOKENS)
    tokenizer = tokenizer.in_windows(TextWindows(stride=2, pooling=pooling), pairs=pairs)
    made = [(text, None) if isinstance(text, str) else text for text in texts]
    examples = [
        Example(text=text, pair=pair, label=label)
        for (text, pair), label in zip(made, labels, strict=False)
    ]
    return tokenise(examples, tokenizer)


def windows_apart(rows: Sequence[LabelledTokens]) -> list[LabelledTokens]:
    """Every window as a row of its own."""
    windows = [window for row in rows for window in row.tokens.windows]
    return [LabelledTokens(tokens=replace(w, overflowing=()), label=0) for w in windows]


def pooled_alone(model: Any, row: LabelledTokens) -> Tensor:
    """The logits ``[1, C]`` of a text, each window in a forward pass of its own."""
    logits_WC = torch.cat(
        [
            model(
                input_ids=torch.tensor([window.ids]),
                attention_mask=torch.ones(1, len(window), dtype=torch.long),
                token_type_ids=torch.tensor([window.types]),
            ).logits
            for window in row.tokens.windows
        ]
    )
    mean = row.tokens.pooling is WindowPooling.MEAN
    return logits_WC.mean(0, keepdim=True) if mean else logits_WC.max(0, keepdim=True).values


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    """The gradient of each parameter that has one."""
    model.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", TASKS)
def test_the_loss_is_that_of_the_pooled_logits(
    model: Path, pooling: WindowPooling, kind: str
) -> None:
    """Loss and gradient are those of the texts one by one, also where a step is computed apart."""
    task, labels = TASKS[kind]
    classifier = load_classifier(str(model), task).train(mode=False)
    rows = rows_in_windows(model, pooling, labels)
    assert window_counts(rows) == [3, 1, 3, 1]
    logits_BC = torch.cat([pooled_alone(classifier, row) for row in rows])
    truth = labels_tensor([row.label for row in rows])
    if kind == "several labels":
        loss = functional.binary_cross_entropy_with_logits(logits_BC, truth)
    else:
        truth = truth if truth.ndim == 2 else truth.long()
        loss = functional.cross_entropy(logits_BC, truth)
    expected = gradients(classifier, loss)
    objective = LabelObjective(classifier, task)

    whole = objective(batch_of(rows, pad_id=0, device="cpu"))["label"]
    parts = [
        objective(batch_of(part, pad_id=0, device="cpu", step=rows))["label"]
        for part in (rows[:1], rows[1:])
    ]

    for found in (whole, torch.stack(parts).sum()):
        torch.testing.assert_close(found, loss)
        for name, gradient in gradients(classifier, found).items():
            torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_student_is_compared_by_pooled_logits_and_by_the_layers_of_every_window(
    teacher: Path, pooling: WindowPooling
) -> None:
    """The terms of attention and hidden states are those of windows that are rows of their own."""
    network = shaken(grafted(teacher))
    rows = rows_in_windows(teacher, pooling)
    plain = windows_apart(rows)
    windows = batch_of(rows, pad_id=0, device="cpu")
    apart = batch_of(plain, pad_id=0, device="cpu")
    recipe = LossRecipe(attention=1.0, hidden=1.0, logits=1.0, label=1.0, temperature=2.0)
    objective = Objective(network, TASK, recipe)
    objective.variance = HiddenVariance(by_layer=(1.0,) * len(network.layers))

    found, expected = objective(windows), objective(apart)

    for name in ("attention", "hidden"):
        torch.testing.assert_close(found[name], expected[name])
    pools = {WindowPooling.MEAN: lambda x: x.mean(0), WindowPooling.MAX: lambda x: x.amax(0)}
    student_BC, teacher_BC = (
        torch.stack([pools[pooling](part) for part in logits.split(window_counts(rows))])
        for logits in (network(apart).logits_BC, network.teacher_forward(apart).logits_BC)
    )
    divergence = functional.kl_div(
        (student_BC / 2).log_softmax(-1),
        (teacher_BC / 2).softmax(-1),
        reduction="batchmean",
    )
    torch.testing.assert_close(found["logits"], 4 * divergence)
    label = functional.cross_entropy(student_BC, labels_tensor([r.label for r in rows]).long())
    torch.testing.assert_close(found["label"], label)


@pytest.mark.parametrize("texts", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_training_pools_as_a_server_does(model: Path, texts: Sequence[Any]) -> None:
    """Scores during training are of the logits that ``pooled_rows`` makes of the windows'."""
    classifier = load_classifier(str(model), TASK).train(mode=False)
    for pooling in POOLINGS:
        rows = rows_in_windows(model, pooling, texts=texts)
        forward = LabelObjective(classifier, TASK).logits
        plain = windows_apart(rows)
        windows_WC = logits_of(forward, plain, pad_id=0, device="cpu")

        found = logits_of(forward, rows, pad_id=0, device="cpu")

        expected = pooled_rows(windows_WC, [row.tokens for row in rows])
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_batches_are_bounded_by_windows(model: Path) -> None:
    """Those to score and to calibrate on have as many windows as texts elsewhere, or one text."""
    rows = rows_in_windows(model) * 20

    batches = by_length(rows, batch_size=5)
    calibration = calibration_on(
        rows, 10**6, pad_id=0, device="cpu", autocast=lambda: FP32.autocast("cpu")
    )

    assert sorted(row for batch in batches for row in batch) == list(range(len(rows)))
    assert max(sum(window_counts([rows[i] for i in batch])) for batch in batches) <= 5
    assert all(len(batch.ids_BS) <= 32 for batch in calibration.batches)
    assert sum(batch.step_tokens for batch in calibration.batches) == sum(
        row.tokens.n_read for row in rows
    )


def test_pairs_in_windows_are_not_mixed(model: Path) -> None:
    """A pair in windows neither gets another's second text nor gives its own."""
    rows = rows_in_windows(model, texts=PAIRS)
    assert [count > 1 for count in window_counts(rows)] == [True, True, False]

    special = frozenset({2, 3})
    assert mix_pairs(rows, 1.0, special_ids=special, seed=0, step=0) == rows


@pytest.fixture(scope="module")
def windowed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on texts in windows, which was stopped in the teacher and in the student."""
    recipe = replace(QUICK, max_tokens=6)
    config = replace(
        config_for(model, tmp_path_factory.mktemp("windowed") / "run", recipe),
        windows=TextWindows(pooling=WindowPooling.MAX),
    )
    run(replace(config, output=config.output.parent / "at once"), Silent())
    for i, steps in enumerate((5, 12)):
        with pytest.raises(Interrupted):
            run(replace(config, resume=i > 0, should_stop=StopAfter(steps)), Silent())
    with pytest.raises(BadSetting, match="another windows"):
        run(replace(config, resume=True, windows=None), Silent())
    run(replace(config, resume=True), Silent())
    return config.output


def test_a_resumed_run_in_windows_ends_with_the_same_bits(windowed: Path) -> None:
    """Teacher and student are those of a run that was never stopped."""
    whole = windowed.parent / "at once"
    for part in (".", "teacher"):
        ours, theirs = windowed / part / WEIGHTS_FILE, whole / part / WEIGHTS_FILE
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_model_reads_long_texts_as_it_was_trained(windowed: Path, tmp_path: Path) -> None:
    """Both models record the windows, predict and evaluate in them, and cut only where asked to."""
    trained = TextWindows(stride=1, pooling=WindowPooling.MAX)
    for folder in (windowed, windowed / "teacher"):
        checkpoint = open_checkpoint(folder)
        assert checkpoint.task.windows == trained
        assert tokenizer_as_trained(checkpoint).windows == trained
    with spd.load(windowed, threads=1) as model:
        own = model.predict(TEXTS[0])
        same = model.predict(TEXTS[0], long_texts="windows", window_stride=1, window_pooling="max")
        cut = model.predict(TEXTS[0], long_texts="cut")

    assert own == same and own.windows == 5
    assert (cut.windows, cut.truncated) == (None, True)
    assert cut.scores != own.scores
    lines = [f"{text}\t{i % 2}" for i, text in enumerate(TEXTS * 2)]
    (tmp_path / "dev.tsv").write_text("\n".join(["sentence\tlabel", *lines, ""]))
    notes = spd.evaluate(windowed, data=tmp_path, threads=1).notes
    assert any("are read in windows of 6 tokens" in note for note in notes)


def test_a_student_reads_as_its_teacher_was_trained(windowed: Path) -> None:
    """Without --long-texts; the run says it, also where another way is asked for."""
    options: dict[str, Any] = dict.fromkeys(
        ("long_texts", "window_stride", "window_pooling", "max_windows")
    )
    notes: list[str] = []
    own = {**options, "teacher": str(windowed / "teacher")}

    trained = windows_of_training(own, notes.append)
    cut = windows_of_training({**own, "long_texts": "cut"}, notes.append)

    assert trained == TextWindows(stride=1, pooling=WindowPooling.MAX)
    assert cut is None
    assert "this run reads windows with a stride of 1 tokens, max of their logits" in notes[0]
    assert "this run cuts them" in notes[1]
    with pytest.raises(OptionConflict, match="add --long-texts windows"):
        windows_of_training({**options, "teacher": None, "max_windows": 3}, notes.append)


def test_a_stride_that_fits_no_window_is_refused_before_anything_is_written(
    model: Path, tmp_path: Path
) -> None:
    """Of six tokens four are of a text, so that two windows share three at most."""
    config = config_for(model, tmp_path / "run", replace(QUICK, max_tokens=6))

    with pytest.raises(BadSetting, match="give a stride of 3 or less"):
        run(replace(config, windows=TextWindows(stride=4)), Silent())

    assert not (tmp_path / "run").exists()
