"""The verdict a matrix: the first question whose answer is no, and nothing that is not known."""

from dataclasses import replace

import pytest

from exporters.tensorrt.inspector import Layer
from exporters.tensorrt.verdict import (
    BucketProfile,
    product_type,
    prove_precision,
    verdict_of,
)
from spd_deploy.domain.errors import VerificationFailed
from spd_deploy.sessions.tensorrt.build_plan import PlannedMatrix

NODE = "layer.0/attention/query/MatMul"
PLANNED = PlannedMatrix(
    name="query",
    shape=(64, 64),
    onnx_node=NODE,
    two_of_four=True,
    precision="fp16",
    eligible=True,
    reason="at most 2 of every 4 inputs are kept, in fp16",
)
SPARSE = Layer(
    name=NODE,
    profile=0,
    kind="gemm",
    nodes=(NODE,),
    tactic="sm80_xmma_sparse_gemm_f16f16_f16f32_f32_sptensor16x8x32",
    inputs=("fp16",),
    outputs=("fp16",),
    weights_sparse=True,
)
DENSE = replace(SPARSE, tactic="sm80_xmma_gemm_f16f16_f16f16_f16_tensor16x8x16")
FUSED = replace(SPARSE, name="{ForeignNode[layer.0/a...layer.9/z]}", kind="Myelin", tactic=None)


def compiled(tactic: str) -> Layer:
    return replace(SPARSE, tactic=tactic)


def profile(layer: Layer | None, seconds: float = 1e-5) -> BucketProfile:
    layers = () if layer is None else (layer,)
    return BucketProfile(layers=layers, seconds={one.name: seconds for one in layers})


@pytest.mark.parametrize(
    ("planned", "layer", "tactic", "fact"),
    [
        (
            replace(PLANNED, eligible=False, reason="it is fp32"),
            SPARSE,
            "no",
            "not eligible: it is",
        ),
        (PLANNED, None, "unknown", "unknown: no layer of the engine says that it runs"),
        (PLANNED, FUSED, "unknown", "in a fused region"),
        (PLANNED, replace(SPARSE, tactic=None), "unknown", "unknown"),
        (
            PLANNED,
            compiled("__myl_FcAddCast_0x1a2b"),
            "unknown",
            "its kernel, __myl_FcAddCast_0x",
        ),
        (PLANNED, compiled("_gemm_mha_v2"), "unknown", "its kernel, _gemm_mha_v2, does not say"),
        (PLANNED, compiled("nvjet_hsh_128x64_tn"), "no", "chose a dense kernel; its weights"),
        (PLANNED, compiled("cutlass_tensorop_f16_s16832spgemm_f16_128x64"), "yes", "a sparse"),
        (PLANNED, DENSE, "no", "flagged sparse, which proves nothing"),
        (PLANNED, SPARSE, "yes", "a sparse kernel runs it"),
    ],
)
def test_the_first_no_is_the_verdict(
    planned: PlannedMatrix, layer: Layer | None, tactic: str, fact: str
) -> None:
    """A flag of the weights decides nothing, and what is fused is unknown, not no."""
    verdict = verdict_of(planned, 0, profile(layer), None)

    assert verdict.sparse_tactic == tactic
    assert fact in verdict.reason
    assert verdict.dense_s is None


@pytest.mark.parametrize(
    ("sparse_s", "dense_s", "fact"),
    [
        (1.0, 1.5, "1.50x faster than the dense kernel"),
        (2.0, 1.0, "2.00x slower than the dense kernel"),
        (1.0, 1.01, "as fast as the dense kernel"),
    ],
)
def test_a_sparse_kernel_is_held_against_the_dense_builds(
    sparse_s: float, dense_s: float, fact: str
) -> None:
    """Faster, slower or neither: it is the times of the two layers that say."""
    verdict = verdict_of(PLANNED, 0, profile(SPARSE, sparse_s), profile(DENSE, dense_s))

    assert (verdict.sparse_s, verdict.dense_s) == (sparse_s, dense_s)
    assert fact in verdict.reason


def test_layers_that_do_other_work_are_not_compared() -> None:
    """The dense build fused an addition into it, so their times do not compare."""
    other = replace(DENSE, nodes=(NODE, "layer.0/attention/query/Add"))

    verdict = verdict_of(PLANNED, 0, profile(SPARSE), profile(other))

    assert verdict.dense_s is None
    assert "no layer of the dense build does the same work" in verdict.reason


def test_of_several_layers_the_one_that_multiplies_is_judged() -> None:
    """What only moves or adds for the same node has a kernel too."""
    moved = replace(SPARSE, name="moved", kind="kgen", tactic="__myl_Tran_0x1a2b")
    hidden = replace(SPARSE, name="hidden", tactic=None)

    for layers in ((moved, hidden, DENSE), (DENSE, moved, hidden)):
        assert BucketProfile(layers=layers, seconds={}).layer_of(NODE) is DENSE
    assert BucketProfile(layers=(hidden, moved), seconds={}).layer_of(NODE) is moved


def test_a_kernel_of_several_matrices_says_so() -> None:
    """Queries, keys and values may be one product, whose time is that of all three."""
    nodes = tuple(f"layer.0/attention/{role}/MatMul" for role in ("query", "key", "value"))
    joined = replace(SPARSE, nodes=(*nodes, "layer.0/attention/query/Add"))

    assert "runs it and 2 more;" in verdict_of(PLANNED, 0, profile(joined), None).reason


def test_precision_is_proved_by_kernel_or_inputs() -> None:
    """A kernel's name counts for more than what it reads, and what is hidden proves nothing."""
    unnamed = replace(DENSE, tactic="a kernel")

    assert product_type(DENSE) == "fp16"
    assert product_type(replace(DENSE, inputs=("fp32",))) == "fp16"
    assert product_type(unnamed) == "fp16"
    assert product_type(replace(unnamed, inputs=("fp16", "fp32"))) is None
    assert product_type(FUSED) is None
    assert product_type(None) is None


def test_another_precision_is_refused_and_a_hidden_one_is_counted() -> None:
    """What is proved is told; what is fused is neither proved nor refused."""
    slow = replace(DENSE, tactic="sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n")
    hidden = replace(PLANNED, name="key", onnx_node="elsewhere")

    assert prove_precision([PLANNED, hidden], [profile(DENSE)]) == (
        "1 of 2 products provably in fp16"
    )
    with pytest.raises(VerificationFailed, match="query runs in fp32 in the engine, not in fp16"):
        prove_precision([PLANNED], [profile(DENSE), profile(slow)])
