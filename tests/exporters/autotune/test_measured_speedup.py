"""A speed-up measured beside the dense model: of a checkpoint, of an artefact, and refused."""

from pathlib import Path

import pytest

from exporters.autotune.measure_latency import LatencyPlan
from exporters.autotune.measured_speedup import measure_speedup
from exporters.export import artefact_from_checkpoint
from exporters.precision import Precision
from spd_deploy.domain.errors import BadReport, BadSetting
from spd_deploy.domain.measured_speedup import MeasuredSpeedup
from spd_deploy.domain.patterns import Structured
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.domain.shapes import Shape
from spd_deploy.timing.host_clock import Effort
from tests.tiny import tiny_checkpoint

SHAPES = (Shape(batch=1, seq=8), Shape(batch=4, seq=16))
QUICK = Effort(seconds=0.002, rounds=2)


def plan(runtime: CpuRuntime = "onnxruntime", stored: Precision = Precision.FP32) -> LatencyPlan:
    return LatencyPlan(shapes=SHAPES, threads=1, machine="here", runtime=runtime, stored=stored)


def test_the_ratio_is_the_geometric_mean_of_medians() -> None:
    """Twice and eight times as fast is four times as fast."""
    found = MeasuredSpeedup(
        shapes=SHAPES,
        dense_rounds_s=((2.0, 2.0, 9.0), (8.0, 8.0, 8.0)),
        sparse_rounds_s=((1.0, 1.0, 1.0), (1.0, 0.5, 3.0)),
        where="here",
    )

    assert found.ratios == (2.0, 8.0)
    assert found.ratio == pytest.approx(4)
    assert found.ratio == pytest.approx(found.dense_s / found.sparse_s)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("stored", [Precision.FP32, Precision.INT8])
def test_a_checkpoint_is_timed_in_turns(
    tmp_path: Path, runtime: CpuRuntime, stored: Precision
) -> None:
    """Both models have a time for each shape and round."""
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=Structured(sparsity=0.5))

    found = measure_speedup(checkpoint.folder, plan(runtime, stored), effort=QUICK)

    assert found.shapes == SHAPES
    for seconds in (*found.dense_rounds_s, *found.sparse_rounds_s):
        assert len(seconds) == 2
        assert min(seconds) > 0


def test_an_artefact_runs_as_it_was_exported(tmp_path: Path) -> None:
    """Its own graph is timed; in another precision it is refused, as is a text too long."""
    checkpoint = tiny_checkpoint(tmp_path / "c", pattern=Structured(sparsity=0.5))
    artefact = artefact_from_checkpoint(checkpoint, tmp_path / "a")

    assert len(measure_speedup(artefact.folder, plan(), effort=QUICK).ratios) == 2
    with pytest.raises(BadSetting, match="another precision"):
        measure_speedup(artefact.folder, plan(stored=Precision.INT8), effort=QUICK)
    long = LatencyPlan(shapes=(Shape(batch=1, seq=99),), threads=1, machine="here")
    with pytest.raises(BadSetting, match="positions for 64 tokens"):
        measure_speedup(artefact.folder, long, effort=QUICK)


def test_missing_rounds_are_refused() -> None:
    """A speed-up has both models' times at every shape."""
    with pytest.raises(BadReport):
        MeasuredSpeedup(
            shapes=SHAPES,
            dense_rounds_s=((1.0,), (1.0,)),
            sparse_rounds_s=((1.0,),),
            where="here",
        )
