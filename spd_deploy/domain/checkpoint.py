"""A checkpoint on disk: a Hugging Face folder with an ``spd.json`` beside the weights.

``AutoModelForSequenceClassification`` loads it like any other model, since the zeros are in the
weights. ``spd.json`` adds what a plain folder cannot say: the task, the pattern and density of
each matrix, what dense and sparse scored on which split, the recipe, and the SHA-256 of the
weights and of their parents. It is written last, so a folder that has it is whole.

A folder without ``spd.json`` is a model of whoever made it. It loads and trains as any other;
whether it is sparse, and in which pattern, is read off its zeros (``domain.detection``).
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from spd_deploy.domain.detection import detect
from spd_deploy.domain.encoder import Encoder, Matrix
from spd_deploy.domain.errors import BadCheckpoint, BadModel, BadPattern
from spd_deploy.domain.files import read_json, write_json
from spd_deploy.domain.folders import refuse_no_model
from spd_deploy.domain.layers import find_layers, passed_over
from spd_deploy.domain.model_config import task_from_config
from spd_deploy.domain.nonzeros import nonzeros_in
from spd_deploy.domain.origin import Origin
from spd_deploy.domain.patterns import Pattern, at_sparsity, parse_pattern
from spd_deploy.domain.stored_weights import WEIGHTS_FILE as WEIGHTS_FILE
from spd_deploy.domain.stored_weights import (
    StoredWeights,
    has_weights,
    sha256_of_weights,
    stored_weights,
    weight_files,
)
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.temperature import TemperatureScaling

SPD_FILE = "spd.json"
CONFIG_FILE = "config.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
SCHEMA = 1

# What tells a folder that ``domain.artefact`` wrote, which imports this module.
_MANIFEST_FILE = "manifest.json"
_GOLDEN_FILE = "golden.safetensors"

_DAMAGED = "train it again, or copy it again from where it came"

Scores = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """The facts of one checkpoint; the weights stay on disk.

    Attributes:
        max_tokens: where training cut its texts; serving cuts there too.
        pattern: None for a dense checkpoint.
        densities: share of non-zeros by matrix name.
        sparsities: the goal of each matrix whose goal is not the pattern's own; 0 leaves it dense.
        scores: metrics by owner (``domain.scores``), such as ``dense`` for the teacher and
            ``sparse``; None marks an undefined one.
        detected: how the zeros gave the pattern away, where no ``spd.json`` declares one.
        calibration: how well the scores of each owner fit what is true, and the temperature that
            its last layer was divided by.
        split: what the scores were measured on.
        scored_rows: on how many rows; None where they are in several files, or not recorded.
        parents: SHA-256 of the weights this one was made from, by what they were.
        origins: where those were read, if not from a folder, by what they were.
        notes: what is read otherwise than it is stored, a sentence each.
    """

    folder: Path
    task: Task
    encoder: Encoder
    max_tokens: int
    weights_sha256: str
    pattern: Pattern | None = None
    densities: Mapping[str, float] = field(default_factory=dict)
    sparsities: Mapping[str, float] = field(default_factory=dict)
    detected: str | None = None
    scores: Mapping[str, Scores] = field(default_factory=dict)
    calibration: Mapping[str, TemperatureScaling] = field(default_factory=dict)
    split: str | None = None
    scored_rows: int | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, Origin] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def weights(self) -> Path:
        """The one safetensors file of a checkpoint of ours; other folders may have shards."""
        return self.folder / WEIGHTS_FILE

    @property
    def density(self) -> float:
        """Share of non-zeros over all prunable weights together; matrices count by their size."""
        return self.encoder.density(self.densities)

    @property
    def temperature(self) -> float:
        """The divisor of the last layer; 1 where its logits are as they were trained."""
        own = self.calibration.get("dense" if self.pattern is None else "sparse")
        return 1.0 if own is None else own.temperature

    def stored(self) -> StoredWeights:
        """Where each tensor is stored, by the name that Transformers gives it.

        Raises:
            BadModel: a file is missing or damaged.
        """
        return stored_weights(self.folder, read_config(self.folder))

    def pattern_of(self, matrix: Matrix) -> Pattern | None:
        """The pattern of ``matrix`` at its own sparsity; None if it is dense."""
        if self.pattern is None:
            return None
        goal = self.sparsities.get(matrix.name, self.pattern.sparsity)
        if goal == 0:
            return None
        return self.encoder.pattern_on(matrix, at_sparsity(self.pattern, goal))

    def to_json(self) -> dict[str, Any]:
        """The content of ``spd.json``."""
        return {
            "schema": SCHEMA,
            "task": self.task.to_json(),
            "max_tokens": self.max_tokens,
            "pattern": None if self.pattern is None else str(self.pattern),
            "sparsity": None if self.pattern is None else self.pattern.sparsity,
            "matrices": {
                name: {"density": density}
                | ({"sparsity": self.sparsities[name]} if name in self.sparsities else {})
                for name, density in self.densities.items()
            },
            "scores": {owner: dict(scores) for owner, scores in self.scores.items()},
            "calibration": {owner: asdict(found) for owner, found in self.calibration.items()},
            "split": self.split,
            "scored_rows": self.scored_rows,
            "recipe": dict(self.recipe),
            "parents": dict(self.parents),
            "origins": {role: origin.to_json() for role, origin in self.origins.items()},
            "versions": dict(self.versions),
            "weights_sha256": self.weights_sha256,
        }


def save_description(checkpoint: Checkpoint) -> None:
    """Write ``spd.json``; the weights and tokenizer must be in the folder already."""
    write_json(checkpoint.folder / SPD_FILE, checkpoint.to_json())


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint's description and verify its weights against it.

    Raises:
        BadCheckpoint: nothing there, damaged, or written by a newer version.
        BadModel: a model that is not handled, or not stored as safetensors.
    """
    refuse_no_model(folder)
    refuse_unsafe_weights(folder)
    config = read_config(folder)
    stored = stored_weights(folder, config)
    encoder = _encoder_of(stored, config)
    notes = _notes(stored, encoder, config)
    weights_sha256 = sha256_of_weights(folder)
    if not (folder / SPD_FILE).exists():
        return _undeclared(folder, encoder, config, stored, weights_sha256, notes)
    value = read_json(folder / SPD_FILE, error=BadCheckpoint, fix=_DAMAGED)
    checkpoint = replace(_from_json(folder, encoder, value), notes=notes)
    if checkpoint.weights_sha256 != weights_sha256:
        raise BadCheckpoint(
            f"{stored.files[0]} is not the file that {SPD_FILE} describes",
            got=f"SHA-256 {weights_sha256[:12]}, expected {checkpoint.weights_sha256[:12]}",
            fix=_DAMAGED,
        )
    _refuse_misfits(checkpoint)
    return checkpoint


def encoder_in(folder: Path) -> Encoder:
    """The encoder of the model in a folder, of which no more than names and shapes are read.

    Raises:
        BadModel: a model that is not handled, or not stored as safetensors.
    """
    config = read_config(folder)
    refuse_unsafe_weights(folder)
    return _encoder_of(stored_weights(folder, config), config)


def notes_on(folder: Path) -> tuple[str, ...]:
    """The parts of a model folder that are read otherwise than stored, a sentence each.

    Of what is no folder, such as a name on the hub, nothing is known.

    Raises:
        BadModel: a model that is not handled, or not stored as safetensors.
    """
    if not folder.is_dir():
        return ()
    config = read_config(folder)
    stored = stored_weights(folder, config)
    return _notes(stored, _encoder_of(stored, config), config)


def read_config(folder: Path) -> dict[str, Any]:
    """The model's ``config.json``.

    Raises:
        BadModel: it is missing, is no JSON object, or holds text that cannot be written again.
    """
    config = read_json(
        folder / CONFIG_FILE, error=BadModel, fix="use the folder of a Hugging Face model"
    )
    for name, value in config.items():
        try:
            json.dumps([name, value], ensure_ascii=False).encode()
        except UnicodeEncodeError as err:
            raise BadModel(
                f"{folder / CONFIG_FILE} holds half a surrogate pair, which is no text",
                got=f"{name!r}: {value!r}"[:120],
                fix="write the field again",
            ) from err
    return config


def refuse_unsafe_weights(folder: Path) -> None:
    """Only safetensors are read: other formats can run code when they are opened.

    Raises:
        BadModel: the folder has no safetensors of a whole model.
        BadCheckpoint: it is an artefact.
    """
    _refuse_artefact(folder)
    weight_files(folder)


def refuse_lacking(reference: object, lacking: Collection[str], *, fix: str) -> None:
    """Weights that are not there must not be made up: random ones give answers, and no error.

    Args:
        reference: the model, as the user named it.
        lacking: the tensors that the model needs and its weights do not have.
        fix: what to use instead.

    Raises:
        BadModel: some are lacking.
    """
    if lacking:
        raise BadModel(
            f"the weights of {reference} lack {len(lacking)} tensors", got=min(lacking), fix=fix
        )


def _refuse_artefact(folder: Path) -> None:
    """A folder that an export wrote, with weights of its own or without: no checkpoint."""
    whole = (folder / _GOLDEN_FILE).is_file()
    if (folder / _MANIFEST_FILE).is_file() and (whole or not has_weights(folder)):
        raise BadCheckpoint(
            f"{folder} is an exported artefact already, not a checkpoint",
            fix="name the checkpoint that it was exported from",
        )
    if whole:
        raise BadCheckpoint(
            f"{folder} looks like an exported artefact, but its {_MANIFEST_FILE} is missing",
            fix="copy it again from where it came, or export it again",
        )


def _refuse_misfits(checkpoint: Checkpoint) -> None:
    """A declared pattern must divide each matrix that it is declared of, or it is another model's.

    Raises:
        BadCheckpoint: it does not.
    """
    for matrix in checkpoint.encoder.matrices():
        try:
            if (pattern := checkpoint.pattern_of(matrix)) is not None:
                pattern.check(matrix.shape)
        except BadPattern as err:
            raise BadCheckpoint(
                f"{checkpoint.folder / SPD_FILE} declares a pattern that {matrix.name} cannot have",
                got=f"{err.what}, {err.got}",
                fix=_DAMAGED,
            ) from err


def _encoder_of(stored: StoredWeights, config: Mapping[str, Any]) -> Encoder:
    """The encoder of stored tensors, which must be floating-point numbers."""
    encoder = Encoder.found_in(stored.shapes, config)
    stored.refuse_quantised([matrix.weight_name for matrix in encoder.matrices()])
    return encoder


def _notes(stored: StoredWeights, encoder: Encoder, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The stored weights that are read otherwise than they are stored."""
    notes = []
    half = stored.stored_in_half([m.weight_name for m in encoder.matrices()])
    if half:
        notes.append(f"the weights are stored as {' and '.join(half)} and computed with in fp32")
    ignored = passed_over(stored.shapes, find_layers(stored.shapes, config))
    if ignored:
        notes.append(
            f"{len(ignored)} tensors in the layers are ignored, as Transformers ignores them: "
            + ", ".join(ignored[:2])
            + (", ..." if len(ignored) > 2 else "")
        )
    return tuple(notes)


def _undeclared(
    folder: Path,
    encoder: Encoder,
    config: Mapping[str, Any],
    stored: StoredWeights,
    weights_sha256: str,
    notes: tuple[str, ...],
) -> Checkpoint:
    """The checkpoint of a folder that has no ``spd.json``: its weights and configuration speak."""
    found = detect(encoder, nonzeros_in(stored, encoder.matrices()))
    return Checkpoint(
        folder=folder,
        task=task_from_config(config),
        encoder=encoder,
        max_tokens=_longest_text(folder, encoder),
        weights_sha256=weights_sha256,
        pattern=found.pattern,
        densities=found.densities,
        sparsities=found.sparsities,
        detected=None if found.pattern is None else found.reason,
        notes=notes,
    )


def _longest_text(folder: Path, encoder: Encoder) -> int:
    """Where texts are cut: at the tokenizer's own limit, where the model could read more."""
    file = folder / TOKENIZER_CONFIG_FILE
    if not file.is_file():
        return encoder.positions
    settings = read_json(file, error=BadModel, fix="copy it from the model again")
    limit = settings.get("model_max_length")
    if isinstance(limit, bool) or not isinstance(limit, int | float) or limit < 1:
        return encoder.positions
    return min(encoder.positions, int(limit))


def _from_json(folder: Path, encoder: Encoder, value: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint that ``spd.json`` describes."""
    if value.get("schema") != SCHEMA:
        raise BadCheckpoint(
            f"{folder / SPD_FILE} has a schema this version does not read",
            got=value.get("schema"),
            fix=f"use the version of spd that wrote it; this one reads schema {SCHEMA}",
        )
    try:
        spelled = value["pattern"]
        return Checkpoint(
            folder=folder,
            task=Task.from_json(value["task"]),
            encoder=encoder,
            max_tokens=int(value["max_tokens"]),
            weights_sha256=str(value["weights_sha256"]),
            pattern=None if spelled is None else parse_pattern(spelled, value["sparsity"]),
            densities={name: float(m["density"]) for name, m in value["matrices"].items()},
            sparsities={
                name: float(m["sparsity"])
                for name, m in value["matrices"].items()
                if "sparsity" in m
            },
            scores=dict(value["scores"]),
            calibration={
                owner: TemperatureScaling.from_json(found)
                for owner, found in value.get("calibration", {}).items()  # older files have none
            },
            split=value["split"],
            scored_rows=value.get("scored_rows"),
            recipe=dict(value["recipe"]),
            parents=dict(value["parents"]),
            origins={
                role: Origin.from_json(found)
                for role, found in value.get("origins", {}).items()  # older files have none
            },
            versions=dict(value["versions"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise BadCheckpoint(f"{folder / SPD_FILE} is damaged", got=repr(err), fix=_DAMAGED) from err
