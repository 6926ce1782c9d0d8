"""Names of operators, as the exporter and ONNX Runtime give them, to places in the model."""

import pytest

from spd_deploy.benchmark.layers.attribution import Part, attribution_of
from spd_deploy.domain.models.architecture import Role

NAMES: list[tuple[str, str, Part, tuple[int, Role] | None]] = [
    ("layer.3/attention/query/Gemm", "Gemm", "products", (3, "query")),
    ("layer.11/attention/key/Conv", "Conv", "products", (11, "key")),
    ("layer.0/attention/value/Gather", "Gather", "gather copies", (0, "value")),
    ("layer.0/attention/value/Reshape_1", "Reshape", "gather copies", (0, "value")),
    (
        "layer.0/attention/attention_output/FusedConv",
        "FusedConv",
        "products",
        (0, "attention_output"),
    ),
    (
        "layer.0/attention/attention_output/Add",
        "Add",
        "bias and residual",
        (0, "attention_output"),
    ),
    ("fused layer.0/feed_forward/intermediate/Gemm", "FusedGemm", "products", (0, "intermediate")),
    ("layer.0/feed_forward/output/Gemm", "Gemm", "products", (0, "output")),
    ("layer.0/attention/Add", "Add", "bias and residual", (0, "attention_output")),
    ("layer.0/feed_forward/Add", "Add", "bias and residual", (0, "output")),
    ("layer.0/attention/product/MatMul/MatMulScaleFusion/", "FusedMatMul", "attention", None),
    ("layer.0/attention/product/Softmax", "Softmax", "attention", None),
    ("layer.0/attention/norm/MatMul_1", "MatMul", "normalisation", None),
    ("layer.0/feed_forward/norm/Add", "Add", "normalisation", None),
    ("layer.0/feed_forward/Gelu", "Gelu", "activation", None),
    ("layer.5/Gather", "Gather", "embeddings and head", None),
    ("embeddings/LayerNormalization", "LayerNormalization", "embeddings and head", None),
    ("mask/Sub", "Sub", "embeddings and head", None),
    ("fused pooler.dense/Gemm", "FusedGemm", "embeddings and head", None),
    ("classifier.out_proj/Gemm", "Gemm", "embeddings and head", None),
    ("head/Transpose", "Transpose", "embeddings and head", None),
    ("", "ReorderInput", "unattributed", None),
    ("Transpose_12", "Transpose", "unattributed", None),
    ("elsewhere/query/Gemm", "Gemm", "unattributed", None),
]


@pytest.mark.parametrize(("name", "op", "part", "matrix"), NAMES, ids=[n[0] for n in NAMES])
def test_an_operator_is_placed_by_its_scope(
    name: str, op: str, part: Part, matrix: tuple[int, Role] | None
) -> None:
    """The scope tells part and matrix, whatever a fusion adds; without one it is unattributed."""
    place = attribution_of(name, op)

    assert (place.part, place.matrix) == (part, matrix)
