"""Checkpoint to torch artefact: choose, pack, write, verify; whole or not at all.

The folder holds ``model.safetensors``, ``network.json`` (``sessions/torch_artefact/plan.py``), the
tokenizer, ``config.json``, ``golden.safetensors`` and ``manifest.json``. Nothing in it is pickled.
It is verified on the CPU, where the same tensors run in plain PyTorch.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from exporters.artefact_folder import copy_beside, manifest_of, matrix_rows, refuse_unready
from exporters.classifier_weights import ClassifierWeights, read_weights
from exporters.lowering.candidates import LoweringName
from exporters.torch.pack import plan_of, read_constants, tensors_of, write_tensors
from exporters.torch.select_lowering import Chosen, choices_of, choose_torch
from exporters.verify import parity_of, refuse_broken_pattern
from spd_deploy.domain.artefact import (
    Artefact,
    Manifest,
    Parity,
    hashes_of,
    open_artefact,
    save_manifest,
)
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import VerificationFailed
from spd_deploy.domain.files import replacing
from spd_deploy.domain.golden import GOLDEN_FILE, write_golden
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.versions import versions_of
from spd_deploy.kernels.tiles import Number
from spd_deploy.sessions.open import BF16_TOLERANCE
from spd_deploy.sessions.torch_network.plan import TENSORS_FILE, write_plan
from spd_deploy.sessions.torch_network.session import TorchArtefactSession

# Allowed difference of logits, in units of max(1, largest logit): in fp32 what another order of
# additions makes, in the others what rounding every activation makes.
TOLERANCES: Mapping[Number, float] = {"fp32": 1e-4, "fp16": 2e-2, "bf16": BF16_TOLERANCE}
# Half of the last bit that a number keeps, relative; and half of the least that fp16 tells apart.
_ROUNDING: Mapping[Number, tuple[float, float]] = {
    "fp32": (0.0, 0.0),
    "fp16": (2**-11, 2**-24),
    "bf16": (2**-8, 0.0),
}


def torch_artefact_from_checkpoint(
    checkpoint: Checkpoint,
    output: Path,
    *,
    number: Number = "fp16",
    lowering: LoweringName | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Artefact:
    """Export a checkpoint, sparse or dense, into the folder ``output``; ``lowering`` forces a way.

    Raises:
        NotWritten: ``output`` exists, or cannot be written.
        BadModel: the checkpoint has no tokenizer, or tensors that do not fit.
        BadSetting: a lowering that fits no matrix.
        VerificationFailed: pattern or parity broke; nothing was written.
    """
    refuse_unready(checkpoint, output, overwrite=overwrite)
    weights = read_weights(checkpoint)
    with (progress or Silent()).stage("export", 4) as advance:
        chosen = choose_torch(checkpoint, weights, number, lowering)
        advance(note="chosen")
        with replacing(output) as draft:
            draft.mkdir()
            write_tensors(draft / TENSORS_FILE, tensors_of(weights, chosen, number))
            write_plan(draft, plan_of(weights, chosen, number))
            verify_stored(draft / TENSORS_FILE, checkpoint, weights, chosen, number)
            advance(note="weights verified")
            opener = partial(TorchArtefactSession, draft, checkpoint.encoder)
            golden, parity = parity_of(
                {TENSORS_FILE: opener}, checkpoint, weights, TOLERANCES[number]
            )
            advance(note=f"parity {parity.max_difference:.1g}")
            write_golden(draft / GOLDEN_FILE, golden)
            copy_beside(checkpoint, draft)
            save_manifest(draft, _manifest(checkpoint, chosen, parity, draft, number))
        advance()
    return open_artefact(output)


def verify_stored(
    file: Path,
    checkpoint: Checkpoint,
    weights: ClassifierWeights,
    chosen: Mapping[str, Chosen],
    number: Number,
) -> None:
    """Read the tensors back and compare each matrix with the checkpoint's.

    Raises:
        VerificationFailed: a matrix differs, or does not satisfy its pattern.
    """
    constants = read_constants(file)
    relative, absolute = _ROUNDING[number]
    for matrix in weights.encoder.matrices():
        restored_NK = chosen[matrix.name].choice.lowering.restored(constants)
        weight_NK = weights.of(matrix)
        refuse_broken_pattern(checkpoint, matrix, restored_NK)
        off_NK = np.abs(restored_NK - weight_NK)
        if not bool((off_NK <= relative * np.abs(weight_NK) + absolute).all()):
            raise VerificationFailed(
                f"{matrix.name} was not stored as it was",
                got=f"a weight that is {float(off_NK.max()):.2g} off in {number}",
                fix="nothing was written; export in bf16 or fp32, which hold larger numbers",
            )


def _manifest(
    checkpoint: Checkpoint,
    chosen: Mapping[str, Chosen],
    parity: Parity,
    draft: Path,
    number: Number,
) -> Manifest:
    """What the artefact says of itself."""
    rows = matrix_rows(checkpoint, choices_of(chosen))
    return manifest_of(
        checkpoint,
        format="torch",
        precision=number,
        matrices=tuple(
            replace(row, lowering="2:4") if chosen[row.name].kind == "2:4" else row for row in rows
        ),
        parity=parity,
        files=hashes_of(draft),
        runtime="torch",
        scores=dict(checkpoint.scores),
        versions=versions_of("torch", "triton"),
    )
