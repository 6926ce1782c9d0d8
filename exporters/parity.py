"""Compares the logits of exported models with those of the checkpoint in PyTorch.

The inputs are fixed: random rows of many lengths, and short texts. They are stored with the logits
as the golden file, with which a session is tested when the artefact is opened.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from exporters.classifier_weights import Array, ClassifierWeights
from spd_deploy.domain.artefact import Parity
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadModel, VerificationFailed
from spd_deploy.domain.golden import Golden, GoldenText
from spd_deploy.domain.text import Batch, Tokenizer, Tokens
from spd_deploy.sessions.checkpoint_tokenizer import tokenizer_of
from spd_deploy.sessions.golden_texts import scores_of_logits
from spd_deploy.sessions.open import difference_between, rows_alone
from spd_deploy.sessions.protocol import Session
from spd_deploy.sessions.torch import TorchSession

# Tokens of the longest random row: the memory of attention grows with the square of the length.
_LONGEST_ROW = 1024
# Allowed difference of a quantised graph's logits, on another machine or in another runtime, from
# those it gave here. Rounding elsewhere moves some numbers by an int8 step; OpenVINO differed by
# 0.008.
_OWN_TOLERANCE = 0.05

# Texts that tokenizers treat in different ways. They are short, since every start runs them.
_TEXTS = (
    ("The film was not bad at all.", "It was never dull, and the ending is GREAT!"),
    ("Café Müller: naïve façade, straße & ångström", "¿Qué tal? Ça va, merci."),
    ("这部电影很好看。", "東京タワーはどこですか。"),
    ("See https://example.com/?id=42 (it's $3.50)...", "e-mail: me@example.org\t#tag_1"),
)

_Text = tuple[str, str | None, Tokens]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Inputs:
    """The golden inputs: a padded batch of random rows, and each text in a batch of its own."""

    batch: Batch
    texts: Sequence[_Text]
    text_batches: Sequence[Batch]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Logits:
    """The logits of one model: ``[B, C]`` of the padded batch, ``[C]`` of each text."""

    batch_BC: Array
    texts_C: Sequence[Array]


@dataclass(frozen=True, kw_only=True, slots=True)
class _ExportedLogits(_Logits):
    """The logits of an exported model, and ``[B, C]`` of the batch's rows without padding."""

    rows_BC: Array


def verify_parity(
    openers: Mapping[str, Callable[[], Session]],
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    tolerance: float | None,
) -> tuple[Golden, Parity]:
    """Compare the exported models with the checkpoint in PyTorch on the golden inputs.

    Sessions are opened one at a time. Models that may not round far are compared with one another
    too. Without a ``tolerance`` the task's metric decides, and each model is compared with its own
    logits when it is opened later.

    Returns:
        The golden inputs with the logits that a self-test expects, and how far the farthest model
        is from the checkpoint.

    Raises:
        VerificationFailed: the logits differ by more than the tolerance, or are not finite.
        BadModel: the tokenizer gives ids that the model has no embedding for.
    """
    inputs = _inputs(checkpoint, weights)
    with TorchSession(checkpoint.folder) as reference:
        expected = _Logits(batch_BC=reference.run(inputs.batch), texts_C=_run(reference, inputs))
    exported = {file: _exported_logits(opener, inputs) for file, opener in openers.items()}
    differences = _differences(expected, exported.values(), with_each_other=tolerance is not None)
    difference = float(np.max(differences))  # NumPy's is NaN where one is, Python's is not
    _refuse_difference(difference, tolerance)
    golden = _golden(checkpoint, inputs, expected, {} if tolerance is not None else exported)
    allowed = _OWN_TOLERANCE if tolerance is None else tolerance
    rows = len(inputs.batch.ids_BS)
    return golden, Parity(max_difference=difference, tolerance=allowed, rows=rows)


def _inputs(checkpoint: Checkpoint, weights: ClassifierWeights) -> _Inputs:
    """The golden inputs of a checkpoint."""
    tokenizer = tokenizer_of(checkpoint)
    rows = golden_rows(checkpoint, pad_id=tokenizer.pad_id, pairs=weights.token_types > 1)
    texts = _golden_texts(checkpoint, tokenizer)
    return _Inputs(
        batch=tokenizer.pad(rows),
        texts=texts,
        text_batches=[tokenizer.pad([row]) for _, _, row in texts],
    )


def _run(session: Session, inputs: _Inputs) -> list[Array]:
    """The logits ``[C]`` of each text alone."""
    return [session.run(batch)[0] for batch in inputs.text_batches]


def _exported_logits(opener: Callable[[], Session], inputs: _Inputs) -> _ExportedLogits:
    """The logits of an exported model, in a session that is closed afterwards."""
    with opener() as session:
        return _ExportedLogits(
            rows_BC=rows_alone(session, inputs.batch),
            batch_BC=session.run(inputs.batch),
            texts_C=_run(session, inputs),
        )


def _differences(
    expected: _Logits, exported: Collection[_ExportedLogits], *, with_each_other: bool
) -> list[float]:
    """Differences of the exported models from the checkpoint, and from the first of them."""
    batches_BC = [logits_BC for one in exported for logits_BC in (one.rows_BC, one.batch_BC)]
    differences = [difference_between(one_BC, expected.batch_BC) for one_BC in batches_BC]
    differences += [
        difference_between(text_C, expected_C)
        for one in exported
        for text_C, expected_C in zip(one.texts_C, expected.texts_C, strict=True)
    ]
    if with_each_other:
        differences += [difference_between(one_BC, batches_BC[0]) for one_BC in batches_BC[1:]]
    return differences


def _refuse_difference(difference: float, tolerance: float | None) -> None:
    """Refuse logits that differ by more than the tolerance, or that are not finite.

    Raises:
        VerificationFailed: they do.
    """
    if not (math.isfinite(difference) if tolerance is None else difference <= tolerance):
        raise VerificationFailed(
            "the exported model does not give the checkpoint's logits",
            got=f"a difference of {difference:.2g}"
            + ("" if tolerance is None else f", {tolerance:g} allowed"),
            fix="nothing was written; this is a fault of spd, please report it",
        )


def _golden(
    checkpoint: Checkpoint,
    inputs: _Inputs,
    expected: _Logits,
    own: Mapping[str, _ExportedLogits],
) -> Golden:
    """The golden file; ``own`` are models that are compared with their own logits later."""
    return Golden(
        batch=inputs.batch,
        logits_BC=expected.batch_BC,
        own_BC={file: logits.rows_BC for file, logits in own.items()},
        texts=tuple(
            GoldenText(
                text=text,
                pair=pair,
                ids=row.ids,
                logits=tuple(expected.texts_C[i].tolist()),
                own={file: tuple(logits.texts_C[i].tolist()) for file, logits in own.items()},
                scores=scores_of_logits(checkpoint.task, expected.texts_C[i]),
            )
            for i, (text, pair, row) in enumerate(inputs.texts)
        ),
    )


def _golden_texts(checkpoint: Checkpoint, tokenizer: Tokenizer) -> list[_Text]:
    """The golden texts, as pairs where the task has pairs, with their tokens."""
    pairs = checkpoint.task.has_pair
    texts = [(first, second if pairs else None) for first, second in _TEXTS]
    rows = [(text, pair, tokenizer.encode(text, pair)) for text, pair in texts]
    highest, known = max(max(row.ids) for _, _, row in rows), checkpoint.encoder.vocabulary
    if highest >= known:
        raise BadModel(
            f"the tokenizer of {checkpoint.folder} gives ids that its model has no embedding for",
            got=f"id {highest}, {known} embeddings",
            fix="use the tokenizer that the model was trained with",
        )
    return rows


def golden_rows(checkpoint: Checkpoint, *, pad_id: int, pairs: bool) -> list[Tokens]:
    """Fixed random rows of many lengths without padding; with ``pairs``, every other is a pair.

    The longest are as long as texts are cut to, up to 1024 tokens.
    """
    draw = np.random.default_rng(0)
    longest = min(checkpoint.max_tokens, _LONGEST_ROW)
    lengths = sorted({1, 2, 3, 7, longest // 2, longest - 1, longest} & set(range(1, longest + 1)))
    rows = []
    for i, length in enumerate(lengths):
        ids = draw.integers(0, checkpoint.encoder.vocabulary - 1, length)
        ids += ids >= pad_id
        types = [int(pairs and i % 2 and place > length // 2) for place in range(length)]
        rows.append(Tokens(ids=tuple(map(int, ids)), types=tuple(types)))
    return rows
