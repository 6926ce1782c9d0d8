"""What must hold of an export before it may appear under its name.

The weights, read back from the file as stored, are the checkpoint's, in fp32 bit for bit, and
satisfy its pattern along K; the logits on fixed inputs are those of the checkpoint in PyTorch, in
one padded batch and row by row. In int8 the task's metric is the judge instead.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporters.lowering.choose import Choice
from exporters.precisions import Precision, Scores, Trial
from exporters.storage import read_constants
from exporters.weights import ClassifierWeights
from spd_deploy.domain.artefact import Golden, Parity
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import VerificationFailed
from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer, Tokens
from spd_deploy.sessions.onnxruntime import OnnxSession
from spd_deploy.sessions.opening import difference_between
from spd_deploy.sessions.protocol import Session
from spd_deploy.sessions.torch import TorchSession

# A self-test of an int8 artefact allows this many times the difference that was measured here, and
# at least as much as follows: other processors round at other places.
_INT8_ROOM = 2.0
_LEAST_INT8_TOLERANCE = 0.05

_REPORT = "nothing was written; this is a fault of spd, please report it"


def verify_weights(
    model: Path,
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    choices: Mapping[str, Choice],
    precision: Precision,
) -> None:
    """Read the constants back and compare each matrix with the checkpoint's.

    Raises:
        VerificationFailed: a matrix differs, or does not satisfy its pattern.
    """
    import torch

    constants = read_constants(model)
    for matrix in weights.encoder.matrices():
        restored_NK = choices[matrix.name].lowering.restored(constants)
        pattern = checkpoint.pattern_of(matrix)
        if pattern is not None and not pattern.holds(torch.tensor(restored_NK)):
            raise VerificationFailed(
                f"{matrix.name} does not satisfy {pattern} at {pattern.sparsity:.0%}",
                got=f"density {np.count_nonzero(restored_NK) / restored_NK.size:.3f}",
                fix="nothing was written; the checkpoint was changed after training",
            )
        if not precision.near(restored_NK, weights.of(matrix)):
            raise VerificationFailed(f"{matrix.name} was not stored as it was", fix=_REPORT)


def verify_parity(
    models: Sequence[Path],
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    precision: Precision,
) -> tuple[Golden, Parity]:
    """Compare the exported graphs with the checkpoint on the golden inputs, in ONNX Runtime.

    Returns:
        The golden inputs with the checkpoint's logits, and how far the farthest graph is from them.

    Raises:
        VerificationFailed: they differ by more than the precision may make them.
    """
    openers = [partial(OnnxSession, model, precision="fp32") for model in models]
    return parity_of(openers, checkpoint, weights, precision.tolerance)


def parity_of(
    openers: Sequence[Callable[[], Session]],
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    tolerance: float | None,
) -> tuple[Golden, Parity]:
    """:func:`verify_parity` for sessions of any kind, opened one at a time.

    Where ``tolerance`` is None the difference only sets what a self-test allows.

    Raises:
        VerificationFailed: they differ by more than the tolerance.
    """
    tokenizer = Tokenizer(checkpoint.folder / TOKENIZER_FILE, max_tokens=checkpoint.max_tokens)
    rows = golden_rows(checkpoint, pad_id=tokenizer.pad_id, pairs=weights.token_types > 1)
    batch = tokenizer.pad(rows)
    with TorchSession(checkpoint.folder) as reference:
        logits_BC = reference.run(batch)
    # NumPy's maximum is NaN where one is, Python's is not.
    found = [_difference(opener, tokenizer, rows, logits_BC) for opener in openers]
    difference = float(np.max(found))
    if tolerance is None:
        tolerance = max(_INT8_ROOM * difference, _LEAST_INT8_TOLERANCE)
    if not difference <= tolerance:
        raise VerificationFailed(
            "the exported model does not give the checkpoint's logits",
            got=f"a difference of {difference:.2g}, {tolerance:g} allowed",
            fix=_REPORT,
        )
    golden = Golden(batch=batch, logits_BC=logits_BC)
    return golden, Parity(max_difference=difference, tolerance=tolerance, rows=len(rows))


def verify_accuracy(models: Mapping[str, Path], trial: Trial, before: Scores) -> dict[str, Scores]:
    """Score each graph on the task, and compare with the scores ``before`` quantisation.

    Returns:
        The scores by the name of the graph.

    Raises:
        VerificationFailed: the headline fell by more than the trial allows.
    """
    found = {}
    for name, model in models.items():
        with OnnxSession(model, precision="int8") as session:
            found[name] = trial.score(session)
        if not trial.allows(before, found[name]):
            after = found[name].get(trial.metric)
            raise VerificationFailed(
                f"int8 costs more {trial.metric} than allowed",
                got=f"{before.get(trial.metric):.4f} in fp32, "
                f"{'undefined' if after is None else f'{after:.4f}'} in int8",
                fix="nothing was written; export in fp32 (OpenVINO runs that in bf16), calibrate "
                "on more texts of the task, or allow more with --max-drop",
            )
    return found


def _difference(
    opener: Callable[[], Session],
    tokenizer: Tokenizer,
    rows: Sequence[Tokens],
    logits_BC: NDArray[np.float32],
) -> float:
    """How far a session is from ``logits_BC``, all rows in one padded batch and each alone."""
    with opener() as session:
        together_BC = session.run(tokenizer.pad(rows))
        alone_BC = np.concatenate([session.run(tokenizer.pad([row])) for row in rows])
    found = (together_BC, alone_BC)
    return float(np.max([difference_between(one_BC, logits_BC) for one_BC in found]))


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
