"""What the engine inspector says, in the forms of TensorRT 10 and 11."""

import json
from pathlib import Path

import pytest

from exporters.tensorrt.inspector import Layer, layers_in, type_named
from exporters.tensorrt.profile import layers_of_profile
from spd_deploy.domain.errors import EngineFailed

DOCUMENTS = Path(__file__).parent / "documents"


def read(version: int) -> tuple[Layer, ...]:
    return layers_in((DOCUMENTS / f"tensorrt-{version}.json").read_text())


def test_the_documents_say_that_they_are_written() -> None:
    """Until a GPU has been there, nobody may take them for recorded ones."""
    for file in DOCUMENTS.glob("*.json"):
        assert "not recorded from an engine" in json.loads(file.read_text())["//"]


def test_the_form_of_10_is_read() -> None:
    """Types among words, nodes in the metadata, a profile at the end of a name."""
    query, key, foreign, later, *_ = read(10)

    assert (query.kind, query.profile, query.inputs) == ("CaskGemmMatrixMultiply", 0, ("fp16",))
    assert query.sparse and query.weights_sparse and query.kernel_type == "fp16"
    assert key.nodes == ("layer.0/attention/key/MatMul", "layer.0/attention/key/Add")
    assert key.inputs == ("fp16", "fp16")
    assert not key.sparse and key.weights_sparse
    assert foreign.opaque and not query.opaque
    assert (later.name, later.profile) == (query.name, 1)
    assert later.inputs == (None,) and later.tactic is None


def test_the_form_of_11_is_read() -> None:
    """Types in fields of their own, whichever way they are spelled."""
    query, norm = read(11)

    assert query.inputs == ("int8", "int8") and query.outputs == ("fp32",)
    assert query.sparse and query.kernel_type == "int8"
    assert norm.inputs == ("fp16",) and norm.outputs == ("bf16",)
    assert norm.kernel_type is None


def test_layers_of_one_profile_are_told_apart() -> None:
    """By their place, since compiled ones may have no mark."""
    first, second = (layers_of_profile(read(10), number, 2) for number in range(2))

    assert [layer.profile for layer in first] == [0, 0, 0]
    assert [layer.profile for layer in second] == [1, 0, 0]
    assert [layer.name for layer in first] == [layer.name for layer in second]
    assert layers_of_profile(read(11), 0, 1) == read(11)


def rows_of(*names: str) -> tuple[Layer, ...]:
    return layers_in(json.dumps({"Layers": [{"Name": name} for name in names]}))


def test_layers_without_marks_are_told_apart_by_place() -> None:
    """A second profile is never judged by the kernels of the first."""
    both = rows_of("a/MatMul_myl0_1", "b/MatMul_myl0_2", "a/MatMul_myl1_1", "b/MatMul_myl1_2")

    assert layers_of_profile(both, 0, 2) == both[:2]
    assert layers_of_profile(both, 1, 2) == both[2:]


def test_what_belongs_to_no_profile_for_sure_is_left_out() -> None:
    """Unequal profiles without marks tell nothing; with marks, what those say."""
    bare = rows_of("a", "b", "c")
    marked = rows_of("a", "b", "c", "a [profile 1]", "fused")
    swapped = rows_of("a", "b [profile 1]", "b", "c")

    assert [layers_of_profile(bare, number, 2) for number in range(2)] == [(), ()]
    assert [layers_of_profile(marked, number, 2) for number in range(2)] == [
        marked[:3],
        marked[3:4],
    ]
    assert [layers_of_profile(swapped, number, 2) for number in range(2)] == [
        swapped[:1],
        swapped[1:2],
    ]


@pytest.mark.parametrize(
    ("name", "node", "runs"),
    [
        ("layer.1/a/MatMul", "layer.1/a/MatMul", True),
        ("layer.11/a/MatMul", "layer.1/a/MatMul", False),
        ("layer.1/a/MatMul_1", "layer.1/a/MatMul", False),
        ("xlayer.1/a/MatMul", "layer.1/a/MatMul", False),
        ("layer.1/a/MatMul_myl3_4", "layer.1/a/MatMul", True),
        ("layer.1/a/Cast + layer.1/a/MatMul + layer.1/a/Add", "layer.1/a/MatMul", True),
        ("layer_1/q/MatMul+layer_1/a/MatMul_myl0_9", "layer.1/a/MatMul", True),
        ("layer_11/a/MatMul_myl0_9", "layer.1/a/MatMul", False),
    ],
)
def test_a_layer_is_known_by_a_whole_name(name: str, node: str, runs: bool) -> None:
    """Where no metadata names nodes, a node's name stands whole in the layer's."""
    (layer,) = layers_in(json.dumps({"Layers": [{"Name": name}]}))

    assert layer.runs(node) == runs


def test_nodes_are_told_apart_whatever_stands_between_them() -> None:
    """10.x puts a separator of its own there, which is no text."""
    row = {"Name": "a", "Metadata": "[ONNX Layer: layer.1/a/MatMul]\x1e[ONNX Layer: layer.1/a/Add]"}
    (layer,) = layers_in(json.dumps({"Layers": [row]}))

    assert layer.nodes == ("layer.1/a/MatMul", "layer.1/a/Add")
    assert layer.products == 1


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("Row major linear FP32", "fp32"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("Half", "fp16"),
        ("BFloat16", "bf16"),
        ("Int64", "int64"),
        ("N/A due to dynamic shapes", None),
        ("", None),
    ],
)
def test_types_are_found_among_words(words: str, found: str | None) -> None:
    """In the spelling of each version; none where none is told."""
    assert type_named(words) == found


@pytest.mark.parametrize(
    ("tactic", "found"),
    [
        ("sm80_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize64x64x64", "fp16"),
        ("sm80_xmma_gemm_bf16bf16_bf16f32_f32_tn_n", "bf16"),
        ("sm80_xmma_gemm_i8f32_i8i32_f32_tn_n", "int8"),
        ("sm80_xmma_gemm_i8f32_i8i32_f32_tn_n_tilesize32x64x64_by_fusion_tactic", "int8"),
        ("sm90_xmma_gemm_i8i32_i8i32_i32_tn_n_tilesize256x128x128", "int8"),
        ("sm50_xmma_cublas_gemvx_f16f16_f32_f32_tn_n_int32_unit_n", "fp16"),
        ("sm90_xmma_gemm_e4m3e4m3_e4m3f32_f32_tn_n", "fp8"),
        ("sm75_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32_nchw_vect_c_32", "int8"),
        ("cutlass_tensorop_f32_i16832gemm_s8_256x128_64x3_tn_align16", "int8"),
        ("cutlass_tensorop_f32_s16832spgemm_f16_128x64_64x3_tn", "fp16"),
        ("cutlass_tensorop_f32_s1688gemm_64x64_32x6_nn", None),
        ("cutlass_tensorop_s1688gemm_tf32_64x64", None),
        ("nvjet_hsh_128x64_tn", None),
        ("__myl_FcAddCast_0x1a2b", None),
    ],
)
def test_operands_are_told_from_results(tactic: str, found: str | None) -> None:
    """The type that stands first in a name may be the result's, which refuses nothing."""
    (layer,) = layers_in(json.dumps({"Layers": [{"Name": "a", "TacticName": tactic}]}))

    assert layer.kernel_type == found


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Layers": ["a name alone"]}', '{"Layers": 3}'])
def test_a_document_that_tells_nothing_is_refused(text: str) -> None:
    """An engine without details gives names alone, by which nothing could be judged."""
    with pytest.raises(EngineFailed, match="inspector gave no layers"):
        layers_in(text)
