"""Ranges and smoothing of int8: the best of what was tried, and nothing but what int8 rounds."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from exporters.autotune.select import choose_lowerings
from exporters.classifier_weights import Array, ClassifierWeights, read_weights
from exporters.export import ExportRequest, artefact_from_checkpoint
from exporters.lowering.choice import LoweringChoice
from exporters.onnx.calibrate import best_range, calibrate_ranges, relative_error, sample_places
from exporters.onnx.classifier_graph import ClassifierGraph
from exporters.onnx.smoothing import smooth, smoothing_factors
from exporters.onnx.storage import write_graphs
from exporters.precision import Precision
from spd_deploy.domain.checkpoint import CONFIG_FILE, Checkpoint, open_checkpoint
from spd_deploy.domain.progress import Silent
from spd_deploy.domain.text import Batch
from spd_deploy.sessions.onnxruntime import MODEL_FILE, OnnxSession
from tests.exporters.test_precisions import calibration_set, made, some_batches
from tests.tiny import with_weights


class Noting(Silent):
    """Keeps what the user is told."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes

    def note(self, text: str) -> None:
        self.notes.append(text)


def inputs_of(checkpoint: Checkpoint, batches: list[Batch]) -> dict[str, list[Array]]:
    """What each linear layer of the PyTorch model reads: ``[T, K]`` of each batch, by its name.

    Not those that an exported last layer computes for the first token alone.
    """
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint.folder).eval()
    last = checkpoint.encoder.layers - 1
    found: dict[str, list[Array]] = {}
    for matrix in checkpoint.encoder.matrices():
        if matrix.layer < last or matrix.role in ("key", "value"):
            kept = found.setdefault(matrix.name, [])
            model.get_submodule(matrix.name).register_forward_pre_hook(
                lambda _, inputs, kept=kept: kept.append(inputs[0].flatten(0, 1).numpy())
            )
    with torch.inference_mode():
        for batch in batches:
            model(**{name: torch.from_numpy(value) for name, value in batch.named().items()})
    return found


@pytest.mark.parametrize("spelled", [None, "block:32x1"])
def test_a_range_is_the_best_for_what_the_layer_reads(tmp_path: Path, spelled: str | None) -> None:
    """In both layouts it is chosen on inputs of the PyTorch model, for all matrices of an input."""
    checkpoint = made(tmp_path, spelled)
    weights, batches = read_weights(checkpoint), some_batches(checkpoint)
    places = sample_places(len(batches))

    found = calibrate_ranges(weights, choose_lowerings(checkpoint, weights), batches)

    assert set(found) == {m.name for m in checkpoint.encoder.matrices()}
    for name, inputs in inputs_of(checkpoint, batches).items():
        x = np.concatenate([rows[(places * len(rows)).astype(int)] for rows in inputs])
        readers = [m.name for m in checkpoint.encoder.matrices() if m.layer == 0]
        readers = [one for one in readers if one.rsplit(".", 1)[-1] in ("query", "key", "value")]
        together = readers if name in readers else [name]
        if ".1." in name:  # in the last layer, queries read first tokens alone
            together = [n for n in found if ".1." in n and n.endswith((".key", ".value"))]
        best = best_range(x, np.concatenate([weights.weight(one) for one in together]))
        assert found[name] == pytest.approx(best, rel=1e-4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 99), huge=st.sampled_from([1.0, 30.0, 1000.0]))
def test_no_percentile_rounds_less_than_the_best(seed: int, huge: float) -> None:
    """The error is the mean over tokens of the change in their own products, counted in a loop."""
    draw = np.random.default_rng(seed)
    x, weight = (draw.standard_normal(shape).astype(np.float32) for shape in ((60, 20), (7, 20)))
    x[0, 3] *= huge

    def error(range: float) -> float:
        step, shares = range / 127, []
        for token in x:
            rounded = np.clip(np.rint(token / step), -127, 127) * step
            change = sum(float(row @ (rounded - token)) ** 2 for row in weight)
            shares.append(change / sum(float(row @ token) ** 2 for row in weight))
        return float(np.mean(shares))

    best = best_range(x, weight)

    assert relative_error(x, weight, best) == pytest.approx(error(best), rel=1e-3)
    for percentile in (99, 99.9, 99.99, 100):
        assert error(best) <= error(float(np.percentile(np.abs(x), percentile))) * 1.001


def test_inputs_of_zeros_have_a_range() -> None:
    """Its int8 step is not zero, where tokens, inputs or weights are."""
    some, none = np.ones((3, 4), np.float32), np.zeros((3, 4), np.float32)

    ranges = [best_range(x, w) for x, w in ((none, some), (some, none), (some[:0], some))]

    assert min(ranges) > 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 99), zeros=st.integers(0, 4))
def test_factors_share_the_size_of_a_channel(seed: int, zeros: int) -> None:
    """They are the power of two next to the root of its share; what none reads becomes small."""
    draw = np.random.default_rng(seed)
    size: NDArray[np.float32] = np.exp(draw.normal(0, 3, 8)).astype(np.float32)
    matrices = [draw.standard_normal((n, 8)).astype(np.float32) for n in (3, 5)]
    size[:zeros] = 0
    matrices = [np.where(np.arange(8) == 7, 0, one).astype(np.float32) for one in matrices]

    found = smoothing_factors(size, matrices)

    for k, factor in enumerate(found):
        if k < zeros or k == 7:
            assert factor == (1 if k < zeros else 2**20)
            continue
        largest = max(abs(row[k]) / max(map(abs, row)) for one in matrices for row in one.tolist())
        exponent = np.log2(np.sqrt(size[k] / largest))
        assert float(np.log2(factor)).is_integer()
        assert abs(np.log2(factor) - exponent) <= 0.5001


def logits(
    folder: Path,
    weights: ClassifierWeights,
    choices: dict[str, LoweringChoice],
    batch: Batch,
    smoothing: dict[str, Array],
) -> Array:
    folder.mkdir()
    write_graphs(folder, {MODEL_FILE: ClassifierGraph(weights, choices, smoothing=smoothing)})
    with OnnxSession(folder / MODEL_FILE, precision="fp32") as session:
        return session.run(batch)


@pytest.mark.parametrize("spelled", [None, "2:4", "block:32x1", "structured"])
def test_smoothing_changes_no_logit_in_fp32(tmp_path: Path, spelled: str | None) -> None:
    """Factors are powers of two, so not a bit of a logit differs, and zeros stay zeros."""
    checkpoint = made(tmp_path, spelled)
    weights, batches = read_weights(checkpoint), some_batches(checkpoint)
    choices = dict(choose_lowerings(checkpoint, weights))

    found = smooth(weights, choices, batches)
    plain = logits(tmp_path / "plain", weights, choices, batches[0], {})
    smoothed = logits(
        tmp_path / "s", found.weights, dict(found.choices), batches[0], dict(found.factors)
    )

    assert set(found.factors) == set(choices)
    assert any((factor != 1).any() for factor in found.factors.values())
    assert np.array_equal(plain, smoothed)
    for name in choices:
        assert np.array_equal(found.weights.weight(name) == 0, weights.weight(name) == 0)


def with_huge_channels(checkpoint: Checkpoint) -> Checkpoint:
    """The same function with one channel of values and of neurons 4,096 times larger in each layer.

    What makes the channel is multiplied, what reads it is divided: with ReLU no logit changes.
    """
    config = json.loads((checkpoint.folder / CONFIG_FILE).read_text())
    (checkpoint.folder / CONFIG_FILE).write_text(json.dumps(config | {"hidden_act": "relu"}))
    tensors = load_file(checkpoint.weights)
    for layer in range(checkpoint.encoder.layers):
        prefix = f"bert.encoder.layer.{layer}"
        for maker, reader in (
            ("attention.self.value", "attention.output.dense"),
            ("intermediate.dense", "output.dense"),
        ):
            channel = int(tensors[f"{prefix}.{maker}.weight"].abs().sum(1).argmax())
            tensors[f"{prefix}.{maker}.weight"][channel] *= 4096
            tensors[f"{prefix}.{maker}.bias"][channel] *= 4096
            tensors[f"{prefix}.{reader}.weight"][:, channel] /= 4096
    return with_weights(open_checkpoint(checkpoint.folder), tensors)


@pytest.mark.parametrize("spelled", ["block:32x1", "structured"])
def test_int8_that_costs_too_much_is_smoothed(tmp_path: Path, spelled: str) -> None:
    """Channels that dwarf the others cost plain int8 more than four times the accuracy."""
    checkpoint = with_huge_channels(made(tmp_path, spelled))
    notes: list[str] = []

    def exported(max_drop: float, refuses: bool = True) -> Mapping[str, float]:
        judged = replace(calibration_set(checkpoint, max_drop=max_drop), refuses=refuses)
        request = ExportRequest(precision=Precision.INT8, calibration_set=judged)
        artefact = artefact_from_checkpoint(
            checkpoint, tmp_path / "a", request, overwrite=True, progress=Noting(notes)
        )
        scores = artefact.manifest.scores
        return {key: scores[key]["near"] or 0 for key in ("int8", "int8, portable")}

    rough = exported(max_drop=1000)
    assert not notes
    smoothed = exported(max_drop=30)
    assert len(notes) == 2 and all("int8 with plain inputs" in note for note in notes)
    best = exported(max_drop=0, refuses=False)

    assert 1 - min(rough.values()) > 4 * (1 - min(smoothed.values()))
    assert min(best.values()) >= min(smoothed.values())
