"""What must hold of an export before it may appear under its name.

The weights, read back from the file as stored, are the checkpoint's bit for bit and satisfy its
pattern along K; the logits on fixed inputs are those of the checkpoint in PyTorch, in one padded
batch and row by row.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporters.lowering.choose import Choice
from exporters.storage import read_constants
from exporters.weights import ClassifierWeights
from spd_deploy.domain.artefact import Golden, Parity
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import VerificationFailed
from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer, Tokens
from spd_deploy.sessions.onnxruntime import OnnxSession
from spd_deploy.sessions.opening import difference_between
from spd_deploy.sessions.torch import TorchSession

# Largest difference of logits, in units of max(1, largest logit), that a change of the order of
# fp32 additions may make.
TOLERANCE = 1e-4

_REPORT = "nothing was written; this is a fault of spd, please report it"


def verify_weights(
    model: Path,
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    choices: Mapping[str, Choice],
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
        if not np.array_equal(restored_NK, weights.of(matrix)):
            raise VerificationFailed(f"{matrix.name} was not stored as it was", fix=_REPORT)


def verify_parity(
    models: Sequence[Path], checkpoint: Checkpoint, weights: ClassifierWeights
) -> tuple[Golden, Parity]:
    """Compare the exported graphs with the checkpoint on the golden inputs, in ONNX Runtime.

    Returns:
        The golden inputs with the checkpoint's logits, and how far the farthest graph is from them.

    Raises:
        VerificationFailed: they differ by more than ``TOLERANCE``.
    """
    tokenizer = Tokenizer(checkpoint.folder / TOKENIZER_FILE, max_tokens=checkpoint.max_tokens)
    rows = golden_rows(checkpoint, pad_id=tokenizer.pad_id, pairs=weights.token_types > 1)
    batch = tokenizer.pad(rows)
    with TorchSession(checkpoint.folder) as reference:
        logits_BC = reference.run(batch)
    difference = max(_difference(model, tokenizer, rows, logits_BC) for model in models)
    if not difference <= TOLERANCE:
        raise VerificationFailed(
            "the exported model does not give the checkpoint's logits",
            got=f"a difference of {difference:.2g}, {TOLERANCE:g} allowed",
            fix=_REPORT,
        )
    golden = Golden(batch=batch, logits_BC=logits_BC)
    return golden, Parity(max_difference=difference, tolerance=TOLERANCE, rows=len(rows))


def _difference(
    model: Path, tokenizer: Tokenizer, rows: Sequence[Tokens], logits_BC: NDArray[np.float32]
) -> float:
    """How far a graph is from ``logits_BC``, all rows in one padded batch and each alone."""
    with OnnxSession(model, precision="fp32") as session:
        together_BC = session.run(tokenizer.pad(rows))
        alone_BC = np.concatenate([session.run(tokenizer.pad([row])) for row in rows])
    return max(difference_between(found, logits_BC) for found in (together_BC, alone_BC))


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
