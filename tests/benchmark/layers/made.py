"""Profiles made of numbers, so that what follows from them is known by arithmetic."""

from collections.abc import Mapping
from dataclasses import replace

from spd_deploy.benchmark.layers.layer_records import (
    LayerProfile,
    MatrixFacts,
    NodeTime,
    Timeline,
)
from spd_deploy.benchmark.records import Shape

MS = 1e-3
QUERY = MatrixFacts(
    name="bert.encoder.layer.0.attention.self.query",
    layer=0,
    role="query",
    weights=100,
    pattern="block:64x1",
    density=0.1,
    flops_share=0.2,
    lowering="gathered",
    reason="reads the inputs it kept",
)
OUTPUT = replace(
    QUERY,
    name="bert.encoder.layer.0.output.dense",
    role="output",
    weights=400,
    density=0.5,
    flops_share=1.0,
    lowering="dense",
    reason="no kernel skips its zeros",
)
# Seconds by node and operator; the reshape does nothing, so its time is what timing costs.
TIMER_S = 0.5 * MS
DENSE: Mapping[tuple[str, str], float] = {
    ("embeddings/Reshape", "Reshape"): 0.0,
    ("layer.0/attention/query/Gemm", "Gemm"): 10 * MS,
    ("layer.0/attention/product/MatMul", "MatMul"): 4 * MS,
    ("layer.0/attention/norm/LayerNormalization", "LayerNormalization"): 1 * MS,
    ("layer.0/feed_forward/Gelu", "Gelu"): 2 * MS,
    ("layer.0/feed_forward/output/Add", "Add"): 2 * MS,
    ("layer.0/feed_forward/output/Gemm", "Gemm"): 20 * MS,
    ("fused pooler.dense/Gemm", "FusedGemm"): 3 * MS,
}
SPARSE: Mapping[tuple[str, str], float] = {
    ("embeddings/Reshape", "Reshape"): 0.0,
    ("layer.0/attention/query/Gather", "Gather"): 1 * MS,
    ("layer.0/attention/query/Conv", "Conv"): 3 * MS,
    ("layer.0/attention/product/MatMul", "MatMul"): 5 * MS,
    ("layer.0/attention/norm/Mul", "Mul"): 2 * MS,
    ("layer.0/feed_forward/Gelu", "Gelu"): 2 * MS,
    ("layer.0/feed_forward/output/Add", "Add"): 2 * MS,
    ("layer.0/feed_forward/output/Gemm", "Gemm"): 21 * MS,
    ("classifier/Gemm", "Gemm"): 3 * MS,
    ("ReorderInput_7", "ReorderInput"): 1 * MS,
}


def timeline(
    nodes: Mapping[tuple[str, str], float], total_s: float, *, rounds: int = 2
) -> Timeline:
    """Runs of ``total_s`` whose nodes take these times, and what timing them costs."""
    return Timeline(
        runs=((total_s,) * 3,) * rounds,
        profiled=((1.5 * total_s,) * 3,) * rounds,
        nodes=tuple(
            NodeTime(name=name, op=op, seconds=(seconds + TIMER_S,) * rounds)
            for (name, op), seconds in nodes.items()
        ),
    )


def profile(
    *,
    dense: Mapping[tuple[str, str], float] = DENSE,
    sparse: Mapping[tuple[str, str], float] = SPARSE,
    matrices: tuple[MatrixFacts, ...] = (QUERY, OUTPUT),
    dense_s: float = 50 * MS,
    sparse_s: float = 45 * MS,
    others_cores: float = 0.0,
) -> LayerProfile:
    """Two matrices of one layer: one gathered, one that runs dense."""
    return LayerProfile(
        arm="block",
        shape=Shape(batch=1, seq=16),
        threads=2,
        matrices=matrices,
        dense=timeline(dense, dense_s),
        sparse=timeline(sparse, sparse_s),
        others_cores=others_cores,
        runtime="onnxruntime 1.24.0",
    )
