"""A torch artefact in Transformers' own module, against the checkpoint's logits."""

from pathlib import Path

import pytest
import torch

from exporters.onnx import artefact_from_checkpoint
from exporters.torch.export import torch_artefact_from_checkpoint
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadArtefact, Unavailable
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured
from spd_deploy.kernels.tiles import Number
from spd_deploy.sessions.opening import difference_between
from spd_deploy.sessions.torch_artefact.stock import classifier_from_artefact
from tests.tiny import tiny_checkpoint


@pytest.mark.parametrize(
    ("architecture", "pattern", "number", "tolerance"),
    [
        ("bert", Block(rows=32, columns=1, sparsity=0.75), "fp32", 1e-4),
        ("roberta", Block(rows=32, columns=4, sparsity=0.75), "bf16", 5e-2),
        ("distilbert", NM(n=2, m=4), "fp16", 2e-2),
        ("electra", None, "fp32", 1e-4),
    ],
    ids=lambda value: str(value),
)
def test_replaced_linears_give_the_checkpoints_logits(
    tmp_path: Path, architecture: str, pattern: Pattern | None, number: Number, tolerance: float
) -> None:
    """On the golden rows; not one of the encoder's own linears is left."""
    checkpoint = tiny_checkpoint(tmp_path / "c", architecture=architecture, pattern=pattern)
    artefact = torch_artefact_from_checkpoint(checkpoint, tmp_path / "a", number=number)
    golden = artefact.golden()

    model = classifier_from_artefact(artefact)
    inputs = {"input_ids": golden.batch.ids_BS, "attention_mask": golden.batch.mask_BS}
    if getattr(model.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = golden.batch.types_BS
    with torch.inference_mode():
        logits_BC = model(
            **{name: torch.from_numpy(value) for name, value in inputs.items()}
        ).logits

    assert difference_between(logits_BC.float().numpy(), golden.logits_BC) <= tolerance
    left = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert not left & {row.name for row in artefact.manifest.matrices}


def test_what_has_no_place_in_it_is_refused(tmp_path: Path, dense_checkpoint: Checkpoint) -> None:
    """Layers that lost heads or neurons, and artefacts of another format."""
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=Structured(sparsity=0.5))
    compact = torch_artefact_from_checkpoint(checkpoint, tmp_path / "a")
    other = artefact_from_checkpoint(dense_checkpoint, tmp_path / "b")

    with pytest.raises(Unavailable, match="no place for a layer whose heads or neurons are gone"):
        classifier_from_artefact(compact)
    with pytest.raises(BadArtefact, match="only a torch artefact"):
        classifier_from_artefact(other)
