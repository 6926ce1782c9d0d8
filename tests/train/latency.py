"""A latency table of a machine that nobody has measured: time in proportion to what is kept."""

from collections.abc import Sequence

from spd_deploy.domain.cores import default_threads
from spd_deploy.domain.latency_table import EncoderSizes, LatencyTable
from spd_deploy.domain.part_times import LayerTimes, PartTimes, ShapeTimes
from spd_deploy.domain.shapes import Shape
from tests.tiny import SIZES


def latency_table(base_s: float = 1e-3, **sizes: int) -> LatencyTable:
    """Heads take 4 ms of a layer, neurons 6 ms, and the rest of the network ``base_s``."""
    size = {**SIZES, **sizes}
    layer = LayerTimes(
        attention=_part(range(size["heads"] + 1), 4e-3),
        feed_forward=_part(range(0, size["intermediate"] + 1, 16), 6e-3),
    )
    return LatencyTable(
        machine="a test",
        runtime="onnxruntime",
        precision="fp32",
        threads=default_threads(),
        sizes=EncoderSizes(
            layers=size["layers"],
            hidden=size["hidden"],
            heads=size["heads"],
            intermediate=size["intermediate"],
        ),
        times=(ShapeTimes(shape=Shape(batch=8, seq=32), base_s=base_s, inner=layer, last=layer),),
    )


def _part(kept: Sequence[int], most_s: float) -> PartTimes:
    """Times that rise in proportion to what is kept."""
    return PartTimes(kept=tuple(kept), seconds=tuple(most_s * k / kept[-1] for k in kept))
