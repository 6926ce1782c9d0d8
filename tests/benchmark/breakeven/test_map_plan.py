"""What is put on a map: sizes, patterns, and drawn weights that satisfy them."""

import numpy as np
import pytest
import torch

from exporters.onnx.arithmetic.float32 import Float32
from exporters.onnx.graph import Graph
from exporters.precision import Precision
from spd_deploy.benchmark.breakeven.cpu_products import lowering_of
from spd_deploy.benchmark.breakeven.map_plan import (
    MapPlan,
    model_parts,
    pattern_on_shape,
    patterns_of,
)
from spd_deploy.benchmark.breakeven.map_records import MapMatrix
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.errors import BadPattern, BadSetting, SpdError
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured
from spd_deploy.timing.host_clock import TimingSettings
from tests.tiny import tiny_checkpoint

FP32 = Precision.FP32
SMALL = MapMatrix(shape=(8, 8), count=1)


def test_parts_are_the_matrices_of_a_layer(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A model's sizes, counted, are those that an encoder of its widths has in each layer."""
    checkpoint = tiny_checkpoint(
        tmp_path_factory.mktemp("sizes") / "c", hidden=384, intermediate=1536
    )

    (name, parts), (_, of_folder) = model_parts("minilm"), model_parts(str(checkpoint.folder))

    shapes = [matrix.shape for matrix in checkpoint.encoder.matrices() if matrix.layer == 0]
    assert (name, parts) == ("minilm", of_folder)
    assert {part.shape: part.count for part in parts} == {s: shapes.count(s) for s in shapes}


def test_patterns_come_at_each_sparsity() -> None:
    """Each at all sparsities, once, and N:M at its own alone."""
    found = patterns_of(["2:4", "block:8x1", "2:4", "unstructured"], [0.9, 0.5, 0.9])

    assert found == (
        NM(n=2, m=4),
        Block(rows=8, columns=1, sparsity=0.5),
        Block(rows=8, columns=1, sparsity=0.9),
        Unstructured(sparsity=0.5),
        Unstructured(sparsity=0.9),
    )


@pytest.mark.parametrize("shape", [(32, 32), (64, 32), (32, 64)], ids=str)
@pytest.mark.parametrize(
    "pattern", [Block(rows=8, columns=2, sparsity=0.75), Structured(sparsity=0.75)], ids=str
)
def test_drawn_weights_satisfy_the_pattern(shape: tuple[int, int], pattern: Pattern) -> None:
    """What the product holds is the drawn weight under the pattern, at its very sparsity."""
    weight_NK = np.random.default_rng(1).standard_normal(shape, np.float32)
    matrix = Matrix(name="m", layer=0, role="query", shape=shape)

    lowering = lowering_of(matrix, weight_NK, pattern)

    assert lowering is not None
    assert lowering.flops_share == pytest.approx(0.25)
    on = pattern_on_shape(pattern, shape)
    score_NK = torch.from_numpy(weight_NK).abs()
    kept_NK = weight_NK * on.mask(score_NK, 0.75).numpy()
    multiplied = lowering.on_features if lowering.feature_major else lowering.on_tokens
    g = Graph()
    multiplied(g, Float32(), "x", np.zeros(shape[0], np.float32), None)
    assert np.array_equal(lowering.restored(g.constants), kept_NK)


@pytest.mark.parametrize("pattern", [NM(n=2, m=4), Unstructured()], ids=str)
def test_what_nothing_skips_has_no_product(pattern: Pattern) -> None:
    """There is no sparse product of such a pattern to be timed."""
    matrix = Matrix(name="m", layer=0, role="query", shape=(8, 8))

    assert lowering_of(matrix, np.ones((8, 8), np.float32), pattern) is None


@pytest.mark.parametrize(
    ("parts", "tokens", "patterns", "precisions", "kind"),
    [
        ((), (8,), (Structured(),), (FP32,), BadSetting),
        ((SMALL,), (), (Structured(),), (FP32,), BadSetting),
        ((SMALL,), (8,), (), (FP32,), BadSetting),
        ((SMALL,), (8,), (Structured(),), (), BadSetting),
        ((MapMatrix(shape=(65536, 65536), count=1),), (8,), (Structured(),), (FP32,), BadSetting),
        ((SMALL,), (8,), (Block(rows=3, columns=1),), (FP32,), BadPattern),
    ],
)
def test_a_map_of_nothing_is_refused(
    parts: tuple[MapMatrix, ...],
    tokens: tuple[int, ...],
    patterns: tuple[Pattern, ...],
    precisions: tuple[Precision, ...],
    kind: type[SpdError],
) -> None:
    """Nothing to measure, too large a matrix, or a pattern that does not fit it."""
    with pytest.raises(kind):
        MapPlan(
            model=None,
            parts=parts,
            tokens=tokens,
            patterns=patterns,
            precisions=precisions,
            threads=1,
            timing=TimingSettings(),
            runtimes=("onnxruntime",),
        )


def test_a_cpu_without_a_runtime_is_refused() -> None:
    """Only a GPU's map has none to name."""
    with pytest.raises(BadSetting, match="measures nothing"):
        MapPlan(
            model=None,
            parts=(SMALL,),
            tokens=(8,),
            patterns=(Structured(),),
            precisions=(FP32,),
            threads=1,
            timing=TimingSettings(),
        )
