"""A whole torch artefact whose layers the kernels run, in Triton's interpreter."""

from pathlib import Path

import pytest
import torch

from exporters.torch.export import torch_artefact_from_checkpoint
from spd_deploy.domain.number_types import FloatType
from spd_deploy.domain.patterns import Block
from spd_deploy.sessions.open import difference_between
from tests.kernels.interpreter import Interpreter
from tests.tiny import tiny_checkpoint


@pytest.mark.parametrize(
    ("architecture", "dtype", "block", "tolerance"),
    [
        ("bert", "fp32", Block(rows=32, columns=4, sparsity=0.75), 1e-5),
        ("bert", "bf16", Block(rows=32, columns=1, sparsity=0.9), 5e-2),
        ("mpnet", "fp32", Block(rows=32, columns=1, sparsity=0.75), 1e-5),
        ("modernbert", "fp32", Block(rows=32, columns=1, sparsity=0.75), 1e-5),
    ],
    ids=lambda value: str(value),
)
def test_the_kernels_give_the_checkpoints_logits(
    interpreter: Interpreter,
    tmp_path: Path,
    architecture: str,
    dtype: FloatType,
    block: Block,
    tolerance: float,
) -> None:
    """All launches of a network after one another, over the golden rows of mixed lengths."""
    checkpoint = tiny_checkpoint(
        tmp_path / "c", architecture=architecture, pattern=block, max_tokens=9
    )
    artefact = torch_artefact_from_checkpoint(checkpoint, tmp_path / "a", precision=dtype)
    golden = artefact.golden()
    inputs = {
        "ids": golden.batch.ids_BS,
        "mask": golden.batch.mask_BS,
        "types": golden.batch.types_BS,
    }

    found = interpreter.logits(
        artefact.folder, {name: torch.from_numpy(array) for name, array in inputs.items()}
    )

    assert any("gathered" in row.lowering for row in artefact.manifest.matrices)
    assert difference_between(found.numpy(), golden.logits_BC) <= tolerance
