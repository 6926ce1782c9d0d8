"""What must hold of an export before it may appear under its name.

The weights, read back from the file as stored, are the checkpoint's, in fp32 bit for bit, and
satisfy its pattern along K; the logits on fixed inputs are those of the checkpoint in PyTorch, in
one padded batch and row by row. In int8 the task's metric is the judge instead.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from exporters.autotune.select import Choice
from exporters.classifier_weights import Array, ClassifierWeights
from exporters.onnx.embeddings import restored_words, word_table
from exporters.onnx.storage import read_constants
from exporters.precision import CalibrationSet, Precision, Scores
from spd_deploy.domain.artefact import Parity
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.errors import BadModel, VerificationFailed
from spd_deploy.domain.golden import Golden, GoldenText
from spd_deploy.domain.text import Tokenizer, Tokens
from spd_deploy.sessions.checkpoint_tokenizer import tokenizer_of
from spd_deploy.sessions.golden_texts import scores_of_logits
from spd_deploy.sessions.onnxruntime import OnnxSession
from spd_deploy.sessions.open import difference_between, rows_alone
from spd_deploy.sessions.protocol import Session
from spd_deploy.sessions.torch import TorchSession

# How far a quantised graph may be, on another machine or in another runtime, from what it gave
# here: rounding at other places moves some numbers by a step of int8. OpenVINO was seen at 0.008.
_OWN_TOLERANCE = 0.05

# Golden texts: what tokenizers treat in different ways, and short, since each start runs them.
_TEXTS = (
    ("The film was not bad at all.", "It was never dull, and the ending is GREAT!"),
    ("Café Müller: naïve façade, straße & ångström", "¿Qué tal? Ça va, merci."),
    ("这部电影很好看。", "東京タワーはどこですか。"),
    ("See https://example.com/?id=42 (it's $3.50)...", "e-mail: me@example.org\t#tag_1"),
)

_REPORT = "nothing was written; this is a fault of spd, please report it"


def verify_weights(
    model: Path,
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    choices: Mapping[str, Choice],
    precision: Precision,
    words: Precision = Precision.FP32,
) -> None:
    """Read the constants back and compare each matrix, and the words, with the checkpoint's.

    Raises:
        VerificationFailed: a matrix or a word's vector differs by more than its precision makes it,
            or a matrix does not satisfy its pattern.
    """
    constants = read_constants(model)
    if not words.near(restored_words(constants), word_table(weights)):
        raise VerificationFailed("the word embeddings were not stored as they were", fix=_REPORT)
    for matrix in weights.encoder.matrices():
        restored_NK = choices[matrix.name].lowering.restored(constants)
        refuse_broken_pattern(checkpoint, matrix, restored_NK)
        if not precision.near(restored_NK, weights.of(matrix)):
            raise VerificationFailed(f"{matrix.name} was not stored as it was", fix=_REPORT)


def refuse_broken_pattern(checkpoint: Checkpoint, matrix: Matrix, stored_NK: Array) -> None:
    """Refuse a matrix that, as it is stored, has lost its pattern.

    Raises:
        VerificationFailed: it has.
    """
    import torch

    pattern = checkpoint.pattern_of(matrix)
    if pattern is not None and not pattern.holds(torch.tensor(stored_NK)):
        raise VerificationFailed(
            f"{matrix.name} does not satisfy {pattern} at {pattern.sparsity:.0%}",
            got=f"density {np.count_nonzero(stored_NK) / stored_NK.size:.3f}",
            fix="nothing was written; the checkpoint was changed after training",
        )


def verify_parity(
    models: Sequence[Path],
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    tolerance: float | None,
) -> tuple[Golden, Parity]:
    """Compare the exported graphs with the checkpoint on the golden inputs, in ONNX Runtime.

    Graphs that may not round far are compared with one another too. Without a ``tolerance`` the
    task's metric is the judge, and each graph is held to its own logits later.

    Returns:
        The golden inputs with the logits that a self-test asks for, and how far the farthest graph
        is from the checkpoint.

    Raises:
        VerificationFailed: they differ by more than the precision may make them.
    """
    openers = {model.name: partial(OnnxSession, model, precision="fp32") for model in models}
    return parity_of(openers, checkpoint, weights, tolerance)


def parity_of(
    openers: Mapping[str, Callable[[], Session]],
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    tolerance: float | None,
) -> tuple[Golden, Parity]:
    """:func:`verify_parity` for sessions of any kind, by the file they read, one at a time.

    Raises:
        VerificationFailed: they differ by more than the tolerance.
    """
    tokenizer = tokenizer_of(checkpoint)
    rows = golden_rows(checkpoint, pad_id=tokenizer.pad_id, pairs=weights.token_types > 1)
    batch = tokenizer.pad(rows)
    texts = _golden_texts(checkpoint, tokenizer)
    with TorchSession(checkpoint.folder) as reference:
        logits_BC = reference.run(batch)
        expected = _logits_of(reference, tokenizer, texts)
    alone_BC, of_texts, given = {}, {}, []
    for file, opener in openers.items():
        with opener() as session:
            alone_BC[file] = rows_alone(session, batch)
            given += [alone_BC[file], session.run(batch)]
            of_texts[file] = _logits_of(session, tokenizer, texts)
    differences = [difference_between(it_BC, logits_BC) for it_BC in given]
    differences += [
        difference_between(found_C, expected_C)
        for found in of_texts.values()
        for found_C, expected_C in zip(found, expected, strict=True)
    ]
    if tolerance is not None:  # the graphs agree with one another, too
        differences += [difference_between(it_BC, given[0]) for it_BC in given[1:]]
    difference = float(np.max(differences))  # NumPy's is NaN where one is, Python's is not
    if not (math.isfinite(difference) if tolerance is None else difference <= tolerance):
        raise VerificationFailed(
            "the exported model does not give the checkpoint's logits",
            got=f"a difference of {difference:.2g}"
            + ("" if tolerance is None else f", {tolerance:g} allowed"),
            fix=_REPORT,
        )
    own_BC = alone_BC if tolerance is None else {}
    golden = Golden(
        batch=batch,
        logits_BC=logits_BC,
        own_BC=own_BC,
        texts=tuple(
            GoldenText(
                text=text,
                pair=pair,
                ids=row.ids,
                logits=tuple(expected[i].tolist()),
                own={file: tuple(of_texts[file][i].tolist()) for file in own_BC},
                scores=scores_of_logits(checkpoint.task, expected[i]),
            )
            for i, (text, pair, row) in enumerate(texts)
        ),
    )
    allowed = _OWN_TOLERANCE if tolerance is None else tolerance
    return golden, Parity(max_difference=difference, tolerance=allowed, rows=len(rows))


def scores_by_graph(models: Mapping[str, Path], trial: CalibrationSet) -> dict[str, Scores]:
    """The task's scores of each int8 graph, by the name of the graph."""
    found = {}
    for name, model in models.items():
        with OnnxSession(model, precision="int8") as session:
            found[name] = trial.score(session)
    return found


def refuse_costly(after: Iterable[Scores], trial: CalibrationSet, before: Scores) -> None:
    """Refuse int8 graphs whose scores fell too far from those ``before`` quantisation.

    Raises:
        VerificationFailed: the headline fell by more than the trial allows.
    """
    for scores in after:
        if not trial.allows(before, scores):
            score = scores.get(trial.metric)
            raise VerificationFailed(
                f"int8 costs more {trial.metric} than allowed",
                got=f"{before.get(trial.metric):.4f} in fp32, "
                f"{'undefined' if score is None else f'{score:.4f}'} in int8",
                fix="nothing was written; export in fp32 (OpenVINO runs that in bf16), calibrate "
                "on more texts of the task, or allow more with --max-drop",
            )


def _golden_texts(
    checkpoint: Checkpoint, tokenizer: Tokenizer
) -> list[tuple[str, str | None, Tokens]]:
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


def _logits_of(
    session: Session, tokenizer: Tokenizer, texts: Sequence[tuple[str, str | None, Tokens]]
) -> list[Array]:
    """The logits ``[C]`` of each text alone."""
    return [session.run(tokenizer.pad([row]))[0] for _, _, row in texts]


def golden_rows(checkpoint: Checkpoint, *, pad_id: int, pairs: bool) -> list[Tokens]:
    """Fixed random rows of many lengths without padding; with ``pairs``, every other one is two."""
    draw = np.random.default_rng(0)
    longest = checkpoint.max_tokens
    lengths = sorted({1, 2, 3, 7, longest // 2, longest - 1, longest} & set(range(1, longest + 1)))
    rows = []
    for i, length in enumerate(lengths):
        ids = draw.integers(0, checkpoint.encoder.vocabulary - 1, length)
        ids += ids >= pad_id
        types = [int(pairs and i % 2 and place > length // 2) for place in range(length)]
        rows.append(Tokens(ids=tuple(map(int, ids)), types=tuple(types)))
    return rows
