"""``spd.json``, which makes a folder with weights a checkpoint of spd."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from spd_deploy.domain.checkpoint import (
    Checkpoint,
    Scores,
    encoder_in,
    save_description,
)
from spd_deploy.domain.origin import Origin
from spd_deploy.domain.patterns import Pattern
from spd_deploy.domain.stored_weights import sha256_of_weights
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.temperature import TemperatureScaling
from spd_deploy.domain.versions import versions_of


class Zeros(Protocol):
    """The sparsity of an encoder's matrices, by name."""

    @property
    def densities(self) -> Mapping[str, float]:
        """Share of non-zeros of each matrix."""
        ...

    @property
    def sparsities(self) -> Mapping[str, float]:
        """Sparsity at which the pattern holds on each matrix; 0 leaves it dense."""
        ...


def rows_of_one(parts: Mapping[str, Sequence[object]]) -> int | None:
    """The number of rows, where all are of one part; the mean over several has no such number."""
    counts = [len(rows) for rows in parts.values()]
    return counts[0] if len(counts) == 1 else None


def describe_checkpoint(
    folder: Path,
    *,
    task: Task,
    max_tokens: int,
    scores: Mapping[str, Scores],
    split: str | None,
    recipe: Mapping[str, Any],
    parents: Mapping[str, str],
    pattern: Pattern | None = None,
    zeros: Zeros | None = None,
    calibration: Mapping[str, TemperatureScaling] | None = None,
    origins: Mapping[str, Origin] | None = None,
    scored_rows: int | None = None,
) -> None:
    """Write ``spd.json`` beside weights and tokenizer.

    Args:
        folder: holds the weights, the configuration and the tokenizer.
        task: the task of the model.
        max_tokens: length to which texts are cut.
        scores: metrics by owner; the loss is not stored.
        split: name of the rows that were scored.
        recipe: how the model was trained.
        parents: hashes of the models that it was made from, by role.
        pattern: the pattern; None for a dense model.
        zeros: densities and target sparsities; None for a dense model. A target is stored only if
            it differs from the pattern's sparsity.
        calibration: how well the scores fit what is true, by owner.
        origins: where the models that it was made from were read, by role.
        scored_rows: on how many rows the scores were measured, where they are in one file.
    """
    encoder = encoder_in(folder)
    uniform = None if pattern is None else pattern.sparsity
    sparsities = {} if zeros is None else zeros.sparsities
    dense = {m.name: 1.0 for m in encoder.matrices()}
    save_description(
        Checkpoint(
            folder=folder,
            task=task,
            encoder=encoder,
            max_tokens=min(max_tokens, encoder.positions),
            weights_sha256=sha256_of_weights(folder),
            pattern=pattern,
            densities=dense if zeros is None else zeros.densities,
            sparsities={name: s for name, s in sparsities.items() if s != uniform},
            scores={
                owner: {name: value for name, value in metrics.items() if name != "loss"}
                for owner, metrics in scores.items()
            },
            calibration=calibration or {},
            split=split,
            scored_rows=scored_rows,
            recipe=recipe,
            parents=parents,
            origins=origins or {},
            versions=versions_of("torch", "transformers", "tokenizers"),
        )
    )
