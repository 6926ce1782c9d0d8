"""What a tuning is made of: the products that were timed, their times, and the whole network's.

Written as ``tuning.json`` into the artefact, so that an export can be made again from it, on
another machine too: ``spd export --tuning FILE``.

History of the schema:
    1   the first; one without ``precision`` and ``runtime`` is of fp32 in ONNX Runtime.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

from exporters.lowering.candidates import Candidates, LoweringName
from exporters.lowering.compact import Compact
from exporters.lowering.gathered import Gathered
from exporters.precision import Precision
from spd_deploy.domain.documents import versioned
from spd_deploy.domain.errors import BadReport
from spd_deploy.domain.files import read_json
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.domain.shapes import Measured, Shape, mean_gain
from spd_deploy.timing.interleaved import fastest

SCHEMA = 1
TUNING_FILE = "tuning.json"
_AGAIN = "measure again with: spd export --tune"


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedProduct:
    """What tells one product from another, as far as its time goes.

    Attributes:
        shape: outputs and inputs of the whole matrix.
        left: outputs and inputs without the heads or neurons that are wholly zero.
        kept: inputs that each group of outputs reads; all that are left where none are gathered.
        block: the blocks, where there are any, as the command line spells them.
        first: whether it runs on the first token of each row alone, as in the last layer.
    """

    shape: tuple[int, int]
    left: tuple[int, int]
    kept: int
    block: str | None
    first: bool

    @classmethod
    def of(cls, ways: Candidates, *, last: int) -> Self:
        """The product of a matrix in a network whose last layer is ``last``."""
        plain = ways.lowerings[ways.plain]
        left = (plain.outputs, plain.inputs)
        gathered = ways.lowerings.get("gathered")
        inner = gathered.inner if isinstance(gathered, Compact) else gathered
        return cls(
            shape=ways.matrix.shape,
            left=left,
            kept=int(inner.values_GRJ.shape[2]) if isinstance(inner, Gathered) else left[1],
            block=str(ways.pattern) if gathered is not None else None,
            first=ways.matrix.layer == last and ways.matrix.role not in ("key", "value"),
        )

    def shape_at(self, shape: Shape) -> Shape:
        """What it multiplies when the network runs at ``shape``: first tokens lie in one row."""
        return Shape(batch=1, seq=shape.batch) if self.first else shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Seconds of a product, or of a whole network, in each way it can be run.

    ``seconds`` holds for each way, and there for each of the tuning's shapes, one median a round.
    """

    seconds: Mapping[LoweringName, tuple[tuple[float, ...], ...]]

    def __post_init__(self) -> None:
        """Dense is among the ways, and all have times, as many as each other."""
        counts = {len(shapes) for shapes in self.seconds.values()}
        rounds = [s for shapes in self.seconds.values() for s in shapes]
        fine = all(r and all(0 < s < math.inf for s in r) for r in rounds)
        if "dense" not in self.seconds or len(counts) != 1 or not rounds or not fine:
            raise BadReport("times that are missing or no durations", fix=_AGAIN)

    @property
    def plain(self) -> LoweringName:
        """The way without gathering."""
        return "compact" if "compact" in self.seconds else "dense"

    @property
    def gain(self) -> float:
        """What gathering gains over the way without it, the geometric mean of all shapes."""
        return mean_gain(self.gains())

    @property
    def loses(self) -> bool:
        """Whether gathering is there, and loses."""
        return "gathered" in self.seconds and self.gain < 1

    @property
    def chosen(self) -> LoweringName:
        """The way that these times choose: gathered where that is there and does not lose."""
        return "gathered" if "gathered" in self.seconds and not self.loses else self.plain

    def gains(self) -> tuple[float, ...]:
        """What gathering gains at each shape."""
        pairs = zip(self.medians(self.plain), self.medians("gathered"), strict=True)
        return tuple(plain_s / gathered_s for plain_s, gathered_s in pairs)

    def medians(self, way: LoweringName) -> tuple[float, ...]:
        """The median over the rounds, at each shape."""
        return tuple(median(rounds) for rounds in self.seconds[way])

    def refuse_lacking(self, ways: Iterable[LoweringName], *, of: object) -> None:
        """Refuse times ``of`` something that lack one of its ways; a file may be edited by hand.

        Raises:
            BadReport: a way was not timed.
        """
        if lacking := [way for way in ways if way not in self.seconds]:
            raise BadReport(
                f"the tuning lacks times of {of} {lacking[0]}",
                got=f"times of {', '.join(self.seconds)}",
                fix=_AGAIN,
            )

    def measured(self, way: LoweringName, shapes: Sequence[Shape]) -> tuple[Measured, ...]:
        """``way`` beside dense, for the manifest."""
        return tuple(
            Measured(batch=shape.batch, seq=shape.seq, dense_s=dense_s, chosen_s=chosen_s)
            for shape, dense_s, chosen_s in zip(
                shapes, self.medians("dense"), self.medians(way), strict=True
            )
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductTimes:
    """A product and its times."""

    product: TimedProduct
    times: Times


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuning:
    """All that was measured for one checkpoint on one machine.

    Attributes:
        precision: of the matrix products.
        machine: the processor's name and the system's; no host.
        network: the whole network; ``gathered`` as its products alone would have it. None where
            there is nothing to choose.
        doubts: why the times should not be trusted, such as other work on the machine.
    """

    checkpoint_sha256: str
    machine: str
    threads: int
    shapes: tuple[Shape, ...]
    products: tuple[ProductTimes, ...]
    network: Times | None
    precision: Precision = Precision.FP32
    runtime: CpuRuntime = "onnxruntime"
    doubts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """There are times at every shape."""
        times = [known.times for known in self.products]
        times += [] if self.network is None else [self.network]
        counts = {len(shapes) for one in times for shapes in one.seconds.values()}
        if not self.shapes or self.threads < 1 or counts - {len(self.shapes)}:
            raise BadReport("the tuning's shapes and times do not fit together", fix=_AGAIN)

    @property
    def where(self) -> str:
        """Such as ``AMD EPYC, 2 threads, openvino``."""
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.machine}, {threads}, {self.runtime}"

    @property
    def decides(self) -> bool:
        """Whether there is anything that its times decide: a product that could be gathered."""
        return any("gathered" in known.times.seconds for known in self.products)

    @property
    def reached(self) -> tuple[float, ...]:
        """Seconds of the whole network at each shape, as it would be chosen; none without one."""
        return () if self.network is None else self.network.medians(self.network.chosen)

    def of(self, product: TimedProduct) -> Times:
        """The times of a product.

        Raises:
            BadReport: it was not timed.
        """
        for known in self.products:
            if known.product == product:
                return known.times
        raise BadReport("the tuning lacks a product of this checkpoint", got=product, fix=_AGAIN)

    def refuse_other(self, checkpoint_sha256: str) -> None:
        """Times of one checkpoint say nothing of another, whose matrices keep other inputs.

        Raises:
            BadReport: it was measured for another.
        """
        if self.checkpoint_sha256 != checkpoint_sha256:
            raise BadReport(
                "the tuning was measured for other weights",
                got=f"SHA-256 {self.checkpoint_sha256[:12]}, expected {checkpoint_sha256[:12]}",
                fix=_AGAIN,
            )

    def refuse_precision(self, precision: Precision) -> None:
        """Times in one precision say little of another, whose dense products have another rate.

        Raises:
            BadReport: it was measured in another.
        """
        if self.precision is not precision:
            raise BadReport(
                "the tuning was measured in another precision",
                got=f"{self.precision}, to export {precision}",
                fix=f"{_AGAIN} --precision {precision}",
            )

    def to_json(self) -> dict[str, Any]:
        """The content of ``tuning.json``."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_json`.

        Raises:
            BadReport: another schema, or a field that is missing or of the wrong kind.
        """
        other = f"{_AGAIN}; this version reads schema {SCHEMA}"
        return versioned(
            cls, value, SCHEMA, what="the tuning", error=BadReport, fix=_AGAIN, other=other
        )


def fastest_of(tunings: Sequence[Tuning]) -> Tuning:
    """Of tunings of one checkpoint at the same shapes, in several runtimes, the best to choose by.

    That is the one whose network is the fastest; the first unless another clearly is, and where
    there was nothing to time.
    """
    return tunings[fastest([one.reached or (1.0,) for one in tunings])]


def read_tuning(file: Path) -> Tuning:
    """Read ``tuning.json``.

    Raises:
        BadReport: no such file, or one that is damaged.
    """
    return Tuning.from_json(read_json(file, error=BadReport, fix=_AGAIN))
