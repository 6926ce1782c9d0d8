"""Quantisation-aware training: the student computes as an int8 artefact in ONNX Runtime does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from exporters.onnx.arithmetic.int8 import quantize_rows
from spd_deploy.domain.errors import BadSetting, Interrupted
from spd_deploy.domain.patterns import Structured
from spd_deploy.domain.progress import Silent
from spd_train.config import Recipe, StudentRecipe
from spd_train.run import run
from spd_train.student_linear import StudentLinear, int8_rows, uint8_inputs
from spd_train.training.schedule import Stages, stages_of
from tests.tiny import tiny_model
from tests.train.runs import QUICK, TASK, StopAfter, student_config


def in_onnxruntime(x_TK: np.ndarray, weight_NK: np.ndarray) -> np.ndarray:
    """The product by the operators of an int8 artefact."""
    values_NK, scale_N = quantize_rows(weight_NK)
    names = ["x", "values", "scales", "zero"]
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "point"]),
        helper.make_node("MatMulInteger", ["q", "values", "point", "zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["scale", "scales"], ["both"]),
        helper.make_node("Mul", ["wide", "both"], ["y"]),
    ]
    constants: list[np.ndarray] = [np.ascontiguousarray(values_NK.T), scale_N, np.array(0, np.int8)]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x_TK.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (len(x_TK), len(weight_NK)))],
        [numpy_helper.from_array(c, n) for c, n in zip(constants, names[1:], strict=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {"x": x_TK})
    return np.asarray(found)


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-3, 1.0, 50.0]), shift=st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_product_is_that_of_an_int8_artefact(seed: int, scale: float, shift: bool) -> None:
    """Within the rounding of fp32; a value at the middle of two steps may go either way."""
    draw = np.random.default_rng(seed)
    x_TK = (scale * (draw.normal(size=(5, 24)) + (3 if shift else 0))).astype(np.float32)
    weight_NK = draw.normal(size=(7, 24)).astype(np.float32)
    weight_NK[3] = 0
    linear = nn.Linear(24, 7)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight_NK))
        linear.bias.zero_()
    student = StudentLinear(linear)
    student.int8 = True

    found = student(torch.from_numpy(x_TK)).detach().numpy()

    expected = in_onnxruntime(x_TK, weight_NK)
    step = np.ptp(np.append(x_TK, 0)) / 255 * np.abs(weight_NK).max()
    assert np.abs(found - expected).max() <= 1.01 * step
    assert np.median(np.abs(found - expected)) <= 1e-4 * np.abs(expected).max()


def test_gradients_pass_straight_through() -> None:
    """They are those of the product of the rounded operands, as if rounding were not there."""
    torch.manual_seed(0)
    linear = nn.Linear(16, 8)
    student = StudentLinear(linear)
    student.int8 = True
    x = torch.randn(4, 16, requires_grad=True)
    student(x).square().sum().backward()

    rounded = uint8_inputs(x.detach()).requires_grad_()
    weight = int8_rows(linear.weight.detach()).requires_grad_()
    functional.linear(rounded, weight, linear.bias.detach()).square().sum().backward()  # type: ignore[no-untyped-call]

    assert linear.weight.grad is not None and weight.grad is not None and x.grad is not None
    torch.testing.assert_close(linear.weight.grad, weight.grad)
    torch.testing.assert_close(x.grad, rounded.grad)


def test_zeros_stay_zeros() -> None:
    """A pruned weight and an input of zero are exactly zero after rounding."""
    weight_NK = torch.randn(6, 9) * (torch.rand(6, 9) > 0.5)
    x = torch.randn(5, 9) * (torch.rand(5, 9) > 0.5)
    assert (int8_rows(weight_NK)[weight_NK == 0] == 0).all()
    assert (uint8_inputs(x)[x == 0] == 0).all()
    assert torch.equal(uint8_inputs(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_int8_is_the_end_of_the_finetune_stage() -> None:
    """It begins so many epochs before the end; a bound on all steps cuts it with the stage."""
    recipe = StudentRecipe(prune_epochs=1, graft_epochs=1, finetune_epochs=4, int8_epochs=2)
    stages = stages_of(recipe, 10)
    assert [stages.in_int8(step) for step in (0, 39, 40, 59)] == [False, False, True, True]
    assert stages.bounded(25).int8 == 5
    assert recipe.lasting(12).int8_epochs == pytest.approx(4)
    assert not Stages(prune=1, graft=1, finetune=1).in_int8(2)
    with pytest.raises(BadSetting, match="--int8-epochs"):
        replace(recipe, int8_epochs=4.5)


@pytest.mark.parametrize("structured", [True, False])
def test_a_stopped_run_ends_as_if_it_was_not(tmp_path: Path, structured: bool) -> None:
    """Stopped in the int8 part and resumed, it has the same weights; they are not rounded."""
    teacher = tiny_model(tmp_path / "t", task=TASK)
    recipe = _recipe(structured)
    whole = run(student_config(teacher, tmp_path / "whole", recipe), Silent())
    config = student_config(teacher, tmp_path / "stopped", recipe)
    steps = 20
    with pytest.raises(Interrupted):
        run(replace(config, should_stop=StopAfter(steps)), Silent())
    resumed = run(replace(config, resume=True), Silent())
    without = run(student_config(teacher, tmp_path / "fp32", with_int8(recipe, 0.0)), Silent())

    first, second, third = (load_file(c.weights) for c in (whole, resumed, without))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)
    name = next(m.weight_name for m in whole.encoder.matrices())
    assert not torch.equal(first[name], int8_rows(first[name]))


def _recipe(structured: bool) -> Recipe:
    """A short recipe whose last part is in int8."""
    recipe = with_int8(QUICK, 1.0)
    return replace(recipe, pattern=Structured(sparsity=0.5)) if structured else recipe


def with_int8(recipe: Recipe, epochs: float) -> Recipe:
    """The recipe with a finetune stage of an epoch, so many epochs of it in int8."""
    student = replace(recipe.student, finetune_epochs=1, int8_epochs=epochs)
    return replace(recipe, student=student)
