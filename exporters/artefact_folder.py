"""The parts of an artefact's folder that all formats share: tokenizer, config and manifest."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from exporters.lowering.choice import LoweringChoice
from spd_deploy.domain.artefact import Format, Manifest, MatrixRow, Parity, is_artefact
from spd_deploy.domain.checkpoint import CONFIG_FILE, Checkpoint, read_config
from spd_deploy.domain.errors import BadModel, NotWritten
from spd_deploy.domain.files import read_json, refuse_existing, write_json
from spd_deploy.domain.model_config import labels_of
from spd_deploy.domain.runtime_choice import Runtime
from spd_deploy.domain.task_agreement import same_answers
from spd_deploy.domain.text import TOKENIZER_FILE, TOKENIZER_FILES
from spd_deploy.sessions.checkpoint_tokenizer import tokenizer_of, write_tokenizer

_TOKENIZER_CONFIG = "tokenizer_config.json"
# A path of the machine it was made on, and an older name of dtype.
_NOT_COPIED = ("_name_or_path", "torch_dtype")


def refuse_unready(checkpoint: Checkpoint, output: Path, *, overwrite: bool) -> None:
    """Refuse an export that cannot end well, before anything is computed.

    Raises:
        NotWritten: ``output`` exists, or would be replaced and is no artefact.
        BadModel: the checkpoint has no tokenizer, or one that the model has too few embeddings for,
            or it contradicts itself about its labels.
    """
    refuse_existing(output, overwrite=overwrite)
    _refuse_other_labels(checkpoint)
    if output.is_dir() and overwrite:
        _refuse_foreign(output)
    tokenizer_of(checkpoint)


def matrix_rows(
    checkpoint: Checkpoint, choices: Mapping[str, LoweringChoice]
) -> tuple[MatrixRow, ...]:
    """For each matrix: pattern, density, lowering, reason and times, for the manifest."""
    densities = checkpoint.densities
    return tuple(
        MatrixRow(
            name=matrix.name,
            shape=matrix.shape,
            pattern=str(checkpoint.pattern_of(matrix) or "dense"),
            density=densities.get(matrix.name, 1.0),
            lowering=choices[matrix.name].lowering.name,
            reason=choices[matrix.name].reason,
            flops_share=choices[matrix.name].lowering.flops_share,
            measured=choices[matrix.name].measured,
        )
        for matrix in checkpoint.encoder.matrices()
    )


def manifest_of(
    checkpoint: Checkpoint,
    *,
    format: Format,
    precision: str,
    matrices: tuple[MatrixRow, ...],
    parity: Parity,
    files: Mapping[str, str],
    runtime: Runtime,
    scores: Mapping[str, Mapping[str, float | None]],
    versions: Mapping[str, str],
    opset: int | None = None,
) -> Manifest:
    """The manifest of an artefact, with what the checkpoint says of task and pattern."""
    pattern = checkpoint.pattern
    return Manifest(
        format=format,
        precision=precision,
        task=checkpoint.task,
        max_tokens=checkpoint.max_tokens,
        pattern="dense" if pattern is None else str(pattern),
        sparsity=None if pattern is None else pattern.sparsity,
        matrices=matrices,
        parity=parity,
        checkpoint_sha256=checkpoint.weights_sha256,
        files=files,
        opset=opset,
        runtime=runtime,
        scores=scores,
        split=checkpoint.split,
        calibration=checkpoint.calibration,
        scored_rows=checkpoint.scored_rows,
        recipe=checkpoint.recipe,
        origins=checkpoint.origins,
        versions=versions,
    )


def copy_beside(checkpoint: Checkpoint, draft: Path) -> None:
    """Copy the tokenizer, and the configuration without the path of the machine it was made on.

    ``tokenizer.json`` is what AutoTokenizer makes of the source, and is proved to give its ids. A
    reader that knows no manifest, such as Transformers, finds in the other files where texts are
    cut, what the labels are called, and what the outputs mean.

    Raises:
        BadModel: Transformers reads no tokenizer there, or one whose ids no file gives.
    """
    source, task = checkpoint.folder, checkpoint.task
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, draft / name)
    write_tokenizer(source, draft / TOKENIZER_FILE, max_tokens=checkpoint.max_tokens)
    if (draft / _TOKENIZER_CONFIG).is_file():
        settings = read_json(draft / _TOKENIZER_CONFIG, error=BadModel, fix="copy it again")
        write_json(
            draft / _TOKENIZER_CONFIG, {**settings, "model_max_length": checkpoint.max_tokens}
        )
    config = {k: v for k, v in read_config(source).items() if k not in _NOT_COPIED}
    config["dtype"] = "float32"  # as the weights are read, whatever they are stored in
    # Transformers' pipeline takes a sigmoid of one output only where no problem type is named.
    config["problem_type"] = None if task.sigmoid else task.problem_type.value
    if task.labels:
        config["id2label"] = {str(i): label for i, label in enumerate(task.labels)}
        config["label2id"] = {label: i for i, label in enumerate(task.labels)}
    (draft / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _refuse_other_labels(checkpoint: Checkpoint) -> None:
    """Refuse labels that differ from those of ``config.json``, or have another order there.

    Placeholders such as ``LABEL_0`` agree with any labels.

    Raises:
        BadModel: the labels differ.
    """
    task, found = checkpoint.task, labels_of(read_config(checkpoint.folder))
    if not task.labels or len(found) != len(task.labels):
        return
    if not same_answers(replace(task, labels=found), task):
        raise BadModel(
            f"{checkpoint.folder} is described with other labels than its {CONFIG_FILE} has",
            got=f"{', '.join(task.labels)} and {', '.join(found)}",
            fix=f"name the outputs in the id2label of {CONFIG_FILE} as they were trained",
        )


def _refuse_foreign(output: Path) -> None:
    """Refuse to overwrite a folder that is not empty and no artefact.

    Raises:
        NotWritten: it is one.
    """
    if any(output.iterdir()) and not is_artefact(output):
        raise NotWritten(
            f"{output} is not an artefact, so it is not replaced",
            fix="choose another --output",
        )
