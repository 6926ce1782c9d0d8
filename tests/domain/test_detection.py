"""Patterns read off the zeros of models that do not declare one."""

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from spd_deploy.domain.checkpoint import WEIGHTS_FILE, open_checkpoint
from spd_deploy.domain.detection import MIN_ZEROS, Detection, detect
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.models.bert import BERT_LAYER
from spd_deploy.domain.nonzeros import nonzeros_in
from spd_deploy.domain.patterns import Pattern, at_sparsity, parse_pattern
from spd_deploy.domain.stored_weights import stored_weights
from spd_train.pruning.masks import masks_of, targets_of
from tests.tiny import tiny_model

ENCODER = Encoder(
    prefix="bert.encoder.layer",
    naming=BERT_LAYER,
    layers=2,
    hidden=64,
    heads=4,
    intermediate=128,
    vocabulary=10,
    positions=8,
)
QUERY, OUTPUT = "bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.output.dense"

DETECTABLE = [
    "structured",
    "block:64x1",
    "block:32x1",
    "block:16x1",
    "block:8x2",
    "block:16x16",
    "block:1x4",
    "2:4",
    "1:4",
    "1:2",
    "4:8",
    "3:16",
    "unstructured",
]

Weights = Mapping[str, Tensor]


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {m.name: torch.randn(m.shape, generator=draw) for m in ENCODER.matrices()}


def pruned(spelled: str, sparsity: float | None = None, exclude: tuple[str, ...] = ()) -> Weights:
    weights = random_weights()
    goals = targets_of(ENCODER, parse_pattern(spelled, sparsity), exclude)
    masks = masks_of(ENCODER, goals, {name: w.abs() for name, w in weights.items()})
    return {name: w * masks[name] if name in masks else w for name, w in weights.items()}


def seen(weights: Weights) -> Detection:
    return detect(ENCODER, ((m, (weights[m.name] != 0).numpy()) for m in ENCODER.matrices()))


def found_on(weights: Weights) -> dict[str, Pattern]:
    """What is detected on each matrix that is not dense, as it applies there."""
    found = seen(weights)
    assert found.pattern is not None
    return {
        m.name: ENCODER.pattern_on(m, at_sparsity(found.pattern, found.sparsities[m.name]))
        for m in ENCODER.matrices()
        if found.sparsities[m.name]
    }


def test_every_kind_of_pattern_is_detected_here() -> None:
    """No class of pattern is left out of the models that are read below."""
    assert {type(parse_pattern(spelled)) for spelled in DETECTABLE} == set(get_args(Pattern))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from(["row", "column", "block", "2:4", "some", "most", "all", "none"]),
        min_size=12,
        max_size=12,
    ),
    st.integers(0, 99),
)
def test_what_is_detected_holds(zeros: list[str], seed: int) -> None:
    """Whatever zeros each matrix has, the pattern holds on it at the goal it was given."""
    draw = np.random.default_rng(seed)
    weights = random_weights(seed)
    for kind, weight in zip(zeros, weights.values(), strict=True):
        match kind:
            case "row":
                weight[draw.permutation(len(weight))[:20]] = 0
            case "column":
                weight[:, draw.permutation(weight.shape[1])[:20]] = 0
            case "block":
                weight[:32, 16:48] = 0
            case "2:4":
                weight.view(-1, 4)[:, 1:3] = 0
            case "some" | "most" | "all" | "none":
                share = {"some": 0.2, "most": 0.99, "all": 1.0, "none": 0.0}[kind]
                weight[torch.from_numpy(draw.random(tuple(weight.shape)) < share)] = 0
            case _:
                raise AssertionError(kind)

    found = seen(weights)

    sparse = {n for n, w in weights.items() if (w == 0).float().mean() >= MIN_ZEROS}
    assert {name for name, goal in found.sparsities.items() if goal} == sparse
    if found.pattern is not None:
        for name, goal in found_on(weights).items():
            assert goal.holds(weights[name]), (name, goal, found.reason)
    assert found.densities == {n: int(w.count_nonzero()) / w.numel() for n, w in weights.items()}


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(DETECTABLE),
    st.floats(0.3, 0.9),
    st.sampled_from([(), ("layer.0.attention",), ("layer.1.intermediate", "layer.1.output")]),
)
def test_what_the_trainer_makes_is_known_again(
    spelled: str, sparsity: float, exclude: tuple[str, ...]
) -> None:
    """A model pruned by the trainer's own masks shows the pattern, the goals and the exclusions."""
    weights = pruned(spelled, None if ":" in spelled[:4] else sparsity, exclude)

    found = seen(weights)

    assert str(found.pattern) == spelled
    for name, goal in found.sparsities.items():
        zeros = float((weights[name] == 0).float().mean())
        assert goal == pytest.approx(zeros)
        assert (goal == 0) == any(part in name for part in exclude)


def test_a_dense_model_is_dense() -> None:
    """Random weights, a few of which happen to be zero, show no pattern."""
    weights = random_weights()
    for weight in weights.values():
        weight.view(-1)[:: round(1 / MIN_ZEROS) + 1] = 0

    found = seen(weights)

    assert found.pattern is None
    assert not any(found.sparsities.values())


@pytest.mark.parametrize("spelled", ["2:4", "block:32x1", "block:1x4"])
def test_stray_zeros_hide_no_pattern(spelled: str) -> None:
    """Kept weights that happen to be zero, one in two hundred, do not change what is seen."""
    weights = pruned(spelled)
    for weight in weights.values():
        weight.view(-1)[::200] = 0

    assert str(seen(weights).pattern) == spelled


def test_many_stray_zeros_are_no_pattern() -> None:
    """Zeros of which many lie inside kept blocks are not read as blocks."""
    weights = pruned("block:32x1")
    for weight in weights.values():
        weight.view(-1)[::20] = 0

    assert str(seen(weights).pattern) != "block:32x1"


def test_the_best_reading_wins() -> None:
    """Zeros that are both neurons and single weights are read as what can be skipped."""
    weights = pruned("structured", 0.5)
    for weight in weights.values():
        weight.view(-1)[::3] = 0

    found = seen(weights)

    assert str(found.pattern) == "structured"
    assert set(found.sparsities.values()) == {0.5}
    assert "considered: " in found.reason


def test_half_a_head_does_not_go() -> None:
    """Heads whose output is still read, or neurons no one feeds, are no structure."""
    weights = random_weights()
    for matrix in ENCODER.matrices():
        if matrix.role in ("query", "key", "value", "intermediate"):
            rows = torch.randperm(len(weights[matrix.name]))[:20]
            weights[matrix.name][rows] = 0

    assert str(seen(weights).pattern) == "unstructured"


def test_blocks_out_of_balance_are_told() -> None:
    """Where one group of rows keeps all its blocks, nothing is skipped, and the reason says so."""
    weights = random_weights()
    for i, weight in enumerate(weights.values()):
        blocks = weight.view(len(weight) // 32, 32, -1, 32)
        blocks[i % 2, :, ::2] = 0

    found = seen(weights)

    assert str(found.pattern) == "unstructured"
    assert "block:32x32, of which the fullest groups of outputs skip" in found.reason


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int32]
)
def test_zeros_are_found_in_every_float(tmp_path: Path, dtype: torch.dtype) -> None:
    """Masks of a file are what torch says, of zeros with either sign, NaN and the least number."""
    matrices = list(ENCODER.matrices())
    weights = {n: (w * 4).to(dtype) for n, w in pruned("unstructured", 0.5).items()}
    if dtype.is_floating_point:
        special = [0.0, -0.0, float("nan"), torch.finfo(dtype).smallest_normal, 1.0]
        weights[QUERY].view(-1)[:5] = torch.tensor(special, dtype=dtype)
    else:
        weights = {name: weight.masked_fill(weight == 0, 1) for name, weight in weights.items()}
    file = tmp_path / WEIGHTS_FILE
    save_file({"odd": torch.zeros(3, dtype=torch.uint8)} | by_weight_name(weights), file)

    found = {m.name: mask for m, mask in nonzeros_in(stored_weights(tmp_path, {}), matrices)}

    for name, weight in weights.items():
        np.testing.assert_array_equal(found[name], (weight != 0).numpy())


def by_weight_name(weights: Weights) -> dict[str, Tensor]:
    return {f"{name}.weight": weight for name, weight in weights.items()}


def test_a_folder_from_elsewhere_opens_with_its_pattern(tmp_path: Path) -> None:
    """A Hugging Face folder with sparse matrices opens so, and its one dense matrix is that."""
    folder = tiny_model(tmp_path / "m")
    sparse = by_weight_name(pruned("block:32x1", 0.75, (OUTPUT,)))
    tensors = load_file(folder / WEIGHTS_FILE)
    save_file(tensors | sparse, folder / WEIGHTS_FILE, metadata={"format": "pt"})

    found = open_checkpoint(folder)

    assert str(found.pattern) == "block:32x1"
    assert found.detected is not None
    goals = {m.name: found.pattern_of(m) for m in found.encoder.matrices()}
    assert goals.pop(OUTPUT) is None
    assert {goal.sparsity for goal in goals.values() if goal} == {0.75}
    assert None not in goals.values()
