"""Checkpoint to ONNX artefact: lower, emit, write, verify; whole or not at all."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporters.classifier import ClassifierGraph
from exporters.graph import Target
from exporters.lowering.choose import Choice, choose
from exporters.storage import write_graphs
from exporters.tuning.values import TUNING_FILE, Tuning
from exporters.verify import verify_parity, verify_weights
from exporters.weights import ClassifierWeights, read_weights
from spd_deploy.domain.artefact import (
    GOLDEN_FILE,
    Artefact,
    Manifest,
    MatrixRow,
    Parity,
    hashes_of,
    open_artefact,
    save_manifest,
    write_golden,
)
from spd_deploy.domain.checkpoint import CONFIG_FILE, Checkpoint, read_config
from spd_deploy.domain.errors import BadModel, NotWritten
from spd_deploy.domain.files import refuse_existing, replacing, write_json
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.text import TOKENIZER_FILE, TOKENIZER_FILES
from spd_deploy.domain.versions import versions_of
from spd_deploy.sessions.onnxruntime import MODEL_FILE

# The twin with standard operators alone, for TensorRT, OpenVINO and whatever else reads ONNX.
PORTABLE_FILE = "portable.onnx"

# Measures the checkpoint, or knows what was measured of it.
Tuner = Callable[[Checkpoint, ClassifierWeights], Tuning]


def artefact_from_checkpoint(
    checkpoint: Checkpoint,
    output: Path,
    *,
    overwrite: bool = False,
    tuner: Tuner | None = None,
    progress: Progress | None = None,
) -> Artefact:
    """Export a checkpoint, sparse or dense, into the folder ``output``.

    The lowerings are chosen by what ``tuner`` gives, or by the cost model where there is none.

    Raises:
        NotWritten: ``output`` exists, or cannot be written.
        BadModel: the checkpoint has no tokenizer, or tensors that do not fit.
        VerificationFailed: pattern or parity broke; nothing was written.
        BadReport: the tuning is of another checkpoint.
    """
    refuse_existing(output, overwrite=overwrite)
    if output.is_dir() and overwrite:
        _refuse_foreign(output)
    if not (checkpoint.folder / TOKENIZER_FILE).is_file():
        raise BadModel(
            f"{checkpoint.folder} has no {TOKENIZER_FILE}",
            fix="save the model's fast tokenizer beside it",
        )
    weights = read_weights(checkpoint)
    tuning = None if tuner is None else tuner(checkpoint, weights)
    with (progress or Silent()).stage("export", 5) as advance:
        choices = choose(checkpoint, weights, tuning)
        advance(note="lowered")
        with replacing(output) as draft:
            draft.mkdir()
            graphs = _graphs(weights, choices)
            write_graphs(draft, graphs)
            advance(note="written")
            files = [draft / name for name in graphs]
            for file in files:
                verify_weights(file, checkpoint, weights, choices)
            advance(note="weights verified")
            golden, parity = verify_parity(files, checkpoint, weights)
            advance(note=f"parity {parity.max_difference:.1g}")
            write_golden(draft / GOLDEN_FILE, golden)
            _copy_beside(checkpoint.folder, draft)
            if tuning is not None:
                write_json(draft / TUNING_FILE, tuning.to_json())
            manifest = _manifest(checkpoint, choices, parity, hashes_of(draft))
            save_manifest(draft, manifest if tuning is None else _tuned(manifest, choices, tuning))
        advance()
    return open_artefact(output)


def matrix_rows(checkpoint: Checkpoint, choices: Mapping[str, Choice]) -> tuple[MatrixRow, ...]:
    """How each matrix is sparse, run, and why."""
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


def _graphs(
    weights: ClassifierWeights, choices: Mapping[str, Choice]
) -> dict[str, ClassifierGraph]:
    """The graph for ONNX Runtime and its portable twin, each in the form that is fastest there."""
    return {
        MODEL_FILE: ClassifierGraph(weights, choices, Target.ONNXRUNTIME, "convolution"),
        PORTABLE_FILE: ClassifierGraph(weights, choices, Target.PORTABLE, "matmul"),
    }


def _copy_beside(source: Path, draft: Path) -> None:
    """The tokenizer's files, and the configuration without the place it was made at."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, draft / name)
    config = {k: v for k, v in read_config(source).items() if k != "_name_or_path"}
    (draft / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _manifest(
    checkpoint: Checkpoint,
    choices: Mapping[str, Choice],
    parity: Parity,
    files: Mapping[str, str],
) -> Manifest:
    """What the artefact says of itself."""
    pattern = checkpoint.pattern
    scores: dict[str, Any] = dict(checkpoint.scores)
    return Manifest(
        format="onnx",
        precision="fp32",
        task=checkpoint.task,
        max_tokens=checkpoint.max_tokens,
        pattern="dense" if pattern is None else str(pattern),
        sparsity=None if pattern is None else pattern.sparsity,
        matrices=matrix_rows(checkpoint, choices),
        parity=parity,
        checkpoint_sha256=checkpoint.weights_sha256,
        files=files,
        opset=Target.ONNXRUNTIME.opset,
        scores=scores,
        split=checkpoint.split,
        versions=versions_of("onnx", "onnxruntime", "onnxruntime-gpu", "torch"),
    )


def _tuned(manifest: Manifest, choices: Mapping[str, Choice], tuning: Tuning) -> Manifest:
    """The manifest with the times of the whole network as it was chosen."""
    gathered = any(choice.lowering.feature_major for choice in choices.values())
    network = tuning.network
    way = "gathered" if gathered or network is None else network.plain
    measured = () if network is None else network.measured(way, tuning.shapes)
    return replace(manifest, measured=measured, measured_on=tuning.where)


def _refuse_foreign(output: Path) -> None:
    """Overwriting replaces an artefact, never a folder with something else in it."""
    from spd_deploy.domain.artefact import is_artefact

    if any(output.iterdir()) and not is_artefact(output):
        raise NotWritten(
            f"{output} is not an artefact, so it is not replaced",
            fix="choose another --output",
        )
