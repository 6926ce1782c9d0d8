"""What tests of the training of an encoder share: its gradients, and students of every pattern."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from exporters.export import artefact_from_checkpoint
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.patterns import NM, Block, Structured, Unstructured
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.text import Tokens, pad
from spd_deploy.sessions.open import session_from_artefact
from spd_train.config import Recipe
from spd_train.recipes import with_fields
from spd_train.run import run
from tests.train.latency import latency_table
from tests.train.runs import batch, spd_recipe, student_config


def gradients(model: PreTrainedModel, *lengths: int) -> dict[str, torch.Tensor]:
    """Logits, and the gradient of each parameter, at rows of these lengths."""
    rows = batch(*lengths, pad_id=1)
    model.train(mode=False)
    model.zero_grad()
    logits_BC = model(**rows.model_inputs(model.config)).logits
    logits_BC.square().sum().backward()
    named = model.named_parameters()
    return {"logits": logits_BC.detach(), **{n: p.grad for n, p in named if p.grad is not None}}


def recipes() -> dict[str, Recipe]:
    """Every pattern with all that the recipe ``spd`` does, a speed-up, and whole layers."""
    spd = spd_recipe()
    permuted = with_fields(spd, {"student.pruning.permute": True})
    return {
        "unstructured": replace(spd, pattern=Unstructured(sparsity=0.8)),
        "2:4": replace(permuted, pattern=NM(n=2, m=4)),
        "block": replace(permuted, pattern=Block(rows=16, columns=1, sparsity=0.75)),
        "structured": replace(spd, pattern=Structured(sparsity=0.5)),
        "parts": with_fields(
            replace(spd, pattern=Structured(sparsity=0.5)), {"student.graft.unit": "sublayer"}
        ),
        "speedup": replace(spd, pattern=Structured(), speedup=3.0),
        "layers": with_fields(
            replace(spd, pattern=Structured(sparsity=0.5)), {"student.pruning.keep_layers": 1}
        ),
    }


def trained_student(folder: Path, output: Path, name: str) -> Checkpoint:
    """The student of the classifier in ``folder`` by one of :func:`recipes`."""
    config = student_config(folder, output, recipes()[name])
    if name == "speedup":
        config = replace(config, latency=latency_table())
    return run(config, Silent())


def assert_exports_as_in_transformers(
    checkpoint: Checkpoint, folder: Path, rows: Sequence[tuple[int, ...]], *, pad_id: int
) -> None:
    """The artefact, written to ``folder``, gives the logits of the checkpoint in Transformers."""
    artefact = artefact_from_checkpoint(checkpoint, folder)
    given = pad([Tokens(ids=row, types=(0,) * len(row)) for row in rows], pad_id=pad_id)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint.folder)
    with torch.no_grad():
        ids, mask = torch.from_numpy(given.ids_BS), torch.from_numpy(given.mask_BS)
        expected_BC = model(input_ids=ids, attention_mask=mask).logits.numpy()
    with session_from_artefact(artefact) as session:
        np.testing.assert_allclose(session.run(given), expected_BC, rtol=1e-4, atol=1e-4)
