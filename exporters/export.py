"""Checkpoint to ONNX artefact: lower, emit, write, verify; whole or not at all."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from exporters.artefact_folder import copy_beside, manifest_of, matrix_rows, refuse_unready
from exporters.autotune.select import Choice, forced
from exporters.autotune.tuning import TUNING_FILE, Tuning
from exporters.classifier_weights import ClassifierWeights, read_weights
from exporters.formats import ONNX, Draft, ExportFormat
from exporters.lowering.candidates import LoweringName
from exporters.onnx.calibrate import ranges_on
from exporters.onnx.classifier_graph import ClassifierGraph
from exporters.onnx.storage import write_graphs
from exporters.precision import CalibrationSet, Precision, Scores, arithmetic_for, words_in
from exporters.verify import refuse_costly, scores_by_graph, verify_parity, verify_weights
from spd_deploy.domain.artefact import (
    Artefact,
    Manifest,
    hashes_of,
    open_artefact,
    save_manifest,
)
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.errors import BadSetting
from spd_deploy.domain.files import replacing, write_json
from spd_deploy.domain.golden import GOLDEN_FILE, write_golden
from spd_deploy.domain.progress import Progress, Silent
from spd_deploy.domain.versions import versions_of
from spd_deploy.sessions.onnxruntime import MODEL_FILE, OnnxSession

_WORDS_STAY = (
    "word embeddings are stored in fp32: smaller ones cost more accuracy than --max-drop allows"
)
# Measures the checkpoint, or knows what was measured of it.
Tuner = Callable[[Checkpoint, ClassifierWeights], Tuning]
# Saves the artefact with what it settled in its manifest.
SelectRuntime = Callable[[Artefact], Artefact]


def artefact_from_checkpoint(
    checkpoint: Checkpoint,
    output: Path,
    *,
    precision: Precision = Precision.FP32,
    trial: CalibrationSet | None = None,
    overwrite: bool = False,
    tuner: Tuner | None = None,
    lowering: LoweringName | None = None,
    settle: SelectRuntime | None = None,
    progress: Progress | None = None,
    form: ExportFormat = ONNX,
) -> Artefact:
    """Export a checkpoint, sparse or dense, into the folder ``output``, as an artefact of a form.

    The lowerings are chosen by what ``tuner`` gives, or by the cost model where there is none;
    ``lowering`` forces one instead, and then nothing is timed. int8 needs a ``trial``, by which it
    is calibrated and judged; other precisions need none. ``settle`` has the last word on the
    manifest, such as which runtime to serve in, before the artefact appears under its name.

    Raises:
        NotWritten: ``output`` exists, or cannot be written.
        BadModel: the checkpoint has no tokenizer, or tensors that do not fit.
        BadSetting: int8 without a trial, or a lowering that fits no matrix.
        VerificationFailed: pattern, parity or accuracy broke; nothing was written.
        BadReport: the tuning is of another checkpoint, or in another precision.
    """
    progress = progress or Silent()
    refuse_unready(checkpoint, output, overwrite=overwrite)
    if precision is Precision.INT8 and trial is None:
        raise BadSetting("int8 needs texts to calibrate on", fix="name data: --data DIR")
    weights = read_weights(checkpoint)
    tuning = None if tuner is None or lowering is not None else tuner(checkpoint, weights)
    with progress.stage("export", 5) as advance:
        if lowering is None:
            choices = form.choose(checkpoint, weights, tuning, precision)
        else:
            choices = forced(checkpoint, weights, lowering)
        scores = dict(checkpoint.scores)
        ranges: Mapping[str, float] = {}
        if precision is Precision.INT8 and trial is not None:
            ranges = ranges_on(weights, choices, trial.batches)
        advance(note="lowered")
        with replacing(output) as draft:
            draft.mkdir()
            files = {name: draft / name for name in form.targets}
            make = partial(_graphs, form, weights, choices, precision, ranges)
            words = words_in(precision, next(iter(form.targets.values())))
            if precision is Precision.INT8 and trial is not None:
                smaller = words
                words, judged = _write_int8(draft, files, make, smaller, trial, weights, choices)
                scores |= judged
                if words is not smaller:
                    progress.note(_WORDS_STAY)
            else:
                write_graphs(draft, make(words))
            advance(note="written")
            for file in files.values():
                verify_weights(file, checkpoint, weights, choices, precision, words)
            advance(note="weights verified")
            golden, parity = verify_parity(
                list(files.values()), checkpoint, weights, form.tolerance(precision)
            )
            advance(note=f"parity {parity.max_difference:.1g}")
            write_golden(draft / GOLDEN_FILE, golden)
            copy_beside(checkpoint, draft)
            if tuning is not None:
                write_json(draft / TUNING_FILE, tuning.to_json())
            form.complete(
                Draft(folder=draft, weights=weights, choices=choices, precision=precision)
            )
            manifest = manifest_of(
                checkpoint,
                format=form.format,
                precision=precision.value,
                matrices=matrix_rows(checkpoint, choices),
                parity=parity,
                files=hashes_of(draft),
                opset=next(iter(form.targets.values())).opset,
                runtime=form.runtime,
                scores=scores,
                versions=versions_of("onnx", "onnxruntime", "onnxruntime-gpu", "torch"),
            )
            if trial is not None:  # which has scores of its own
                manifest = replace(manifest, split=_split(checkpoint.split, trial.split))
            if tuning is not None:
                manifest = _tuned(manifest, tuning)
            save_manifest(draft, manifest)
            if settle is not None:
                settle(Artefact(folder=draft, manifest=manifest))
        advance()
    return open_artefact(output)


def _graphs(
    form: ExportFormat,
    weights: ClassifierWeights,
    choices: Mapping[str, Choice],
    precision: Precision,
    ranges: Mapping[str, float],
    words: Precision,
) -> dict[str, ClassifierGraph]:
    """The graphs of the form, with the table of words stored in the precision ``words``."""
    return {
        name: ClassifierGraph(
            weights, choices, target, arithmetic_for(precision, target, ranges), words
        )
        for name, target in form.targets.items()
    }


def _write_int8(
    draft: Path,
    files: Mapping[str, Path],
    make: Callable[[Precision], dict[str, ClassifierGraph]],
    smaller: Precision,
    trial: CalibrationSet,
    weights: ClassifierWeights,
    choices: Mapping[str, Choice],
) -> tuple[Precision, dict[str, Scores]]:
    """Write int8 graphs; the table of words is fp32 where ``smaller`` costs too much accuracy.

    Returns:
        The precision of the words, and the scores of the same graph in fp32 and of each int8 graph.

    Raises:
        VerificationFailed: int8 costs more than the trial allows with fp32 words too.
    """
    before = _fp32_scores(trial, weights, choices)
    words, after = smaller, dict[str, Scores]()
    for words in (smaller, Precision.FP32):
        write_graphs(draft, make(words))
        after = scores_by_graph(files, trial)
        if all(trial.allows(before, scores) for scores in after.values()):
            break
    refuse_costly(after.values(), trial, before)
    arms = ("int8", "int8, portable")  # the first graph, and its twin where it has one
    return words, {"fp32": before} | dict(zip(arms, after.values(), strict=False))


def _fp32_scores(
    trial: CalibrationSet, weights: ClassifierWeights, choices: Mapping[str, Choice]
) -> Scores:
    """The task's scores of the same graph in fp32."""
    with tempfile.TemporaryDirectory(prefix="spd-fp32-") as scratch:
        write_graphs(Path(scratch), {MODEL_FILE: ClassifierGraph(weights, choices)})
        with OnnxSession(Path(scratch) / MODEL_FILE, precision="fp32") as session:
            return trial.score(session)


def _split(known: str | None, judged: str) -> str:
    """What all scores were measured on: the checkpoint's, and those that judged the export."""
    return judged if known in (None, judged) else f"{known}; when exported {judged}"


def _tuned(manifest: Manifest, tuning: Tuning) -> Manifest:
    """The manifest with the times of the whole network as it was chosen."""
    network = tuning.network
    measured = () if network is None else network.measured(network.chosen, tuning.shapes)
    return replace(manifest, measured=measured, measured_on=tuning.where)
