"""Facts of a checkpoint or an artefact, read from its records for its model card."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spd_deploy.domain.artefact import Artefact, is_artefact, open_artefact
from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.errors import BadCheckpoint
from spd_deploy.domain.folders import DISTIL_FILE, MANIFEST_FILE
from spd_deploy.domain.origin import Origin
from spd_deploy.domain.patterns import Pattern, parse_pattern
from spd_deploy.domain.scores import score_owner
from spd_deploy.domain.stored_weights import INDEX_FILE, WEIGHTS_FILE, weight_files
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.temperature import TemperatureScaling
from spd_deploy.hub.model_files import CARD_FILE, CHECKPOINT_FILES, PICTURE_FILES

Scores = Mapping[str, Mapping[str, float | None]]
# What spd train --seeds writes beside the folder of each seed.
_SEEDS_FILE = "seeds.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """Facts of a model that is to be published.

    Attributes:
        format: of an artefact; None for a checkpoint.
        own: under which name its own scores are.
        scored_rows: on how many rows ``scores`` of checkpoints were measured; None if that is not
            recorded.
        density: share of non-zeros over all prunable weights.
        facts: what only one of the two kinds has, a sentence each.
        seeds: means and intervals over several seeds, by arm and metric.
        files: the names of the files that make up the model.
    """

    folder: Path
    format: str | None
    precision: str
    runtime: str | None
    task: Task
    max_tokens: int
    pattern: Pattern | None
    density: float
    own: str
    scores: Scores
    split: str | None
    scored_rows: int | None
    calibration: Mapping[str, TemperatureScaling]
    recipe: Mapping[str, Any]
    origins: Mapping[str, Origin]
    versions: Mapping[str, str]
    sha256: str
    facts: tuple[str, ...]
    files: tuple[str, ...]
    seeds: Mapping[str, Any] = field(default_factory=dict)

    @property
    def base(self) -> Origin | None:
        """Where the model that it was made from was read; the nearest one that is known."""
        order = ("checkpoint", "dense", "teacher", "pretrained")
        return next((self.origins[role] for role in order if role in self.origins), None)


def facts_of(folder: Path) -> ModelFacts:
    """The facts in the records of a folder, verified while they are read.

    Raises:
        BadArtefact, BadCheckpoint, BadModel: the folder holds no classifier, or a damaged one.
    """
    if is_artefact(folder):
        return _of_artefact(open_artefact(folder))
    if (folder / DISTIL_FILE).is_file():
        raise BadCheckpoint(
            f"{folder} holds an encoder without a head, and spd push takes a classifier",
            got=f"{DISTIL_FILE} in it",
            fix="fine-tune it with: spd train --model FOLDER --keep-masks, and push that",
        )
    return _of_checkpoint(open_checkpoint(folder))


def _of_artefact(artefact: Artefact) -> ModelFacts:
    """The facts in a manifest."""
    manifest = artefact.manifest
    pruned = manifest.sparsity is not None
    sizes = {row.name: row.shape[0] * row.shape[1] for row in manifest.matrices}
    kept = sum(row.density * sizes[row.name] for row in manifest.matrices)
    own = score_owner(
        pruned=pruned,
        precision=manifest.precision,
        format_=manifest.format,
        runtime=manifest.runtime,
    )
    return ModelFacts(
        folder=artefact.folder,
        format=manifest.format,
        precision=manifest.precision,
        runtime=str(manifest.runtime_choice),
        task=manifest.task,
        max_tokens=manifest.max_tokens,
        pattern=parse_pattern(manifest.pattern, manifest.sparsity) if pruned else None,
        density=kept / sum(sizes.values()),
        own=own,
        scores=manifest.scores,
        split=manifest.split,
        scored_rows=manifest.scored_rows,
        calibration=manifest.calibration,
        recipe=manifest.recipe,
        origins=manifest.origins,
        versions=manifest.versions,
        sha256=manifest.checkpoint_sha256,
        facts=(f"Its logits are {manifest.nearness}.",),
        files=(MANIFEST_FILE, *manifest.files),
    )


def _of_checkpoint(checkpoint: Checkpoint) -> ModelFacts:
    """The facts in ``spd.json``, or in the weights of a folder that has none."""
    folder = checkpoint.folder
    names = (*CHECKPOINT_FILES, INDEX_FILE, *PICTURE_FILES)
    small = [n for n in names if n != CARD_FILE and (folder / n).is_file()]
    weights = [file.name for file in weight_files(folder)]
    if INDEX_FILE in small and WEIGHTS_FILE in weights:
        small.remove(INDEX_FILE)
    detected = checkpoint.detected
    return ModelFacts(
        folder=folder,
        format=None,
        precision="fp32",
        runtime=None,
        task=checkpoint.task,
        max_tokens=checkpoint.max_tokens,
        pattern=checkpoint.pattern,
        density=checkpoint.density if checkpoint.densities else 1.0,
        own=score_owner(pruned=checkpoint.pattern is not None),
        scores=checkpoint.scores,
        split=checkpoint.split,
        scored_rows=checkpoint.scored_rows,
        calibration=checkpoint.calibration,
        recipe=checkpoint.recipe,
        origins=checkpoint.origins,
        versions=checkpoint.versions,
        sha256=checkpoint.weights_sha256,
        facts=() if detected is None else (f"Its pattern was found in its zeros: {detected}.",),
        files=(*small, *weights),
        seeds=_seeds_beside(folder),
    )


def _seeds_beside(folder: Path) -> Mapping[str, Any]:
    """Means and intervals over the seeds of which the folder is one; empty if it is none."""
    file = folder.parent / _SEEDS_FILE
    try:
        value = json.loads(file.read_bytes())
        return dict(value["scores"]) if folder.name in value["runs"].values() else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
