"""The description that makes a folder with weights one of our checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spd_deploy.domain.checkpoint import (
    Checkpoint,
    Scores,
    encoder_in,
    save_description,
)
from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.stored_weights import sha256_of_weights
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.versions import versions_of
from spd_train.pruning.pruner import Pruner


def describe(
    folder: Path,
    *,
    task: Task,
    max_tokens: int,
    scores: Mapping[str, Scores],
    split: str | None,
    recipe: Mapping[str, Any],
    parents: Mapping[str, str],
    pattern: Pattern | None = None,
    pruner: Pruner | None = None,
) -> None:
    """Write ``spd.json`` beside weights and tokenizer; without a ``pruner`` they are dense.

    The goal of a matrix is written down where it is not the pattern's own. The plain loss, which is
    scored along with the metrics, is left to the log.
    """
    encoder = encoder_in(folder)
    uniform = None if pattern is None else pattern.sparsity
    sparsities = {} if pruner is None else pruner.sparsities()
    dense = {m.name: 1.0 for m in encoder.matrices()}
    save_description(
        Checkpoint(
            folder=folder,
            task=task,
            encoder=encoder,
            max_tokens=min(max_tokens, encoder.positions),
            weights_sha256=sha256_of_weights(folder),
            pattern=pattern,
            densities=dense if pruner is None else pruner.densities(),
            sparsities={name: s for name, s in sparsities.items() if s != uniform},
            scores={
                arm: {k: v for k, v in found.items() if k != "loss"}
                for arm, found in scores.items()
            },
            split=split,
            recipe=recipe,
            parents=parents,
            versions=versions_of("torch", "transformers", "tokenizers"),
        )
    )
