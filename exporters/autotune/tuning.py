"""A tuning: the times of a checkpoint's products, and of its whole network, on one machine.

An export with ``--tune`` writes it into the artefact as ``tuning.json``. ``spd export --tuning
FILE`` chooses by these times again, also on another machine.

History of the schema:
    1   the first; one without ``precision`` and ``runtime`` is of fp32 in ONNX Runtime.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self

from exporters.lowering.candidates import Candidates
from exporters.precision import Precision
from spd_deploy.domain.documents import versioned
from spd_deploy.domain.errors import BadReport
from spd_deploy.domain.files import read_json
from spd_deploy.domain.lowering_names import LoweringName, ungathered_of
from spd_deploy.domain.runtime_choice import CpuRuntime
from spd_deploy.domain.shapes import Measured, Shape, mean_gain
from spd_deploy.domain.spelling import counted
from spd_deploy.timing.interleaved import first_unless_faster

SCHEMA = 1
TUNING_FILE = "tuning.json"
_AGAIN = "measure again with: spd export --tune"


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedProduct:
    """The properties of a product that its time depends on; equal products are timed once.

    Attributes:
        shape: outputs and inputs of the whole matrix.
        left: outputs and inputs that remain without heads or neurons that are all zero.
        kept: inputs that each group of outputs reads; those of ``left`` where none are gathered.
        block: the block pattern as the command line spells it; None for other patterns.
        first: whether the product reads only the first token of each row, as in the last layer.
    """

    shape: tuple[int, int]
    left: tuple[int, int]
    kept: int
    block: str | None
    first: bool

    @classmethod
    def of(cls, candidates: Candidates, *, last: int) -> Self:
        """The product of a matrix in a network whose last layer is ``last``."""
        ungathered = candidates.lowerings[candidates.ungathered]
        skipping = candidates.lowerings.get("gathered", ungathered)
        return cls(
            shape=candidates.matrix.shape,
            left=(ungathered.outputs, ungathered.inputs),
            kept=int(skipping.values.shape[-1]),
            block=None if skipping.block is None else str(skipping.block),
            first=candidates.matrix.layer == last
            and candidates.matrix.role not in ("key", "value"),
        )

    def shape_at(self, shape: Shape) -> Shape:
        """Its own shape when the network runs at ``shape``: first tokens form one row."""
        return Shape(batch=1, seq=shape.batch) if self.first else shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Seconds of a product, or of a whole network, in each of its lowerings.

    ``seconds`` holds one median a round, for each lowering and each of the tuning's shapes.
    """

    seconds: Mapping[LoweringName, tuple[tuple[float, ...], ...]]

    def __post_init__(self) -> None:
        """Dense is one of the lowerings, and all have times at the same number of shapes."""
        counts = {len(shapes) for shapes in self.seconds.values()}
        rounds = [s for shapes in self.seconds.values() for s in shapes]
        fine = all(r and all(0 < s < math.inf for s in r) for r in rounds)
        if "dense" not in self.seconds or len(counts) != 1 or not rounds or not fine:
            raise BadReport("the tuning has times that are missing or not positive", fix=_AGAIN)

    @property
    def ungathered(self) -> LoweringName:
        """The best lowering that does not gather: ``compact`` where it was timed, else dense."""
        return ungathered_of(self.seconds)

    @property
    def gain(self) -> float:
        """Geometric mean over the shapes of how many times faster gathering is."""
        return mean_gain(self.gains())

    @property
    def loses(self) -> bool:
        """Whether gathering was timed and is slower."""
        return "gathered" in self.seconds and self.gain < 1

    @property
    def chosen(self) -> LoweringName:
        """The lowering that these times choose: gathered where that was timed and is not slower."""
        return "gathered" if "gathered" in self.seconds and not self.loses else self.ungathered

    def gains(self) -> tuple[float, ...]:
        """How many times faster gathering is at each shape."""
        pairs = zip(self.medians(self.ungathered), self.medians("gathered"), strict=True)
        return tuple(ungathered_s / gathered_s for ungathered_s, gathered_s in pairs)

    def medians(self, lowering: LoweringName) -> tuple[float, ...]:
        """The median seconds over the rounds, at each shape."""
        return tuple(median(rounds) for rounds in self.seconds[lowering])

    def refuse_lacking(self, lowerings: Iterable[LoweringName], *, subject: str) -> None:
        """Refuse times of a ``subject`` that lack one of its lowerings, as an edited file may.

        Raises:
            BadReport: a lowering was not timed.
        """
        if missing := [name for name in lowerings if name not in self.seconds]:
            raise BadReport(
                f"the tuning lacks times of {subject} {missing[0]}",
                got=f"times of {', '.join(self.seconds)}",
                fix=_AGAIN,
            )

    def measured(self, lowering: LoweringName, shapes: Sequence[Shape]) -> tuple[Measured, ...]:
        """The times of a lowering beside those of dense, for the manifest."""
        return tuple(
            Measured(batch=shape.batch, seq=shape.seq, dense_s=dense_s, chosen_s=chosen_s)
            for shape, dense_s, chosen_s in zip(
                shapes, self.medians("dense"), self.medians(lowering), strict=True
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
        machine: the names of the processor and of the system, without that of the host.
        network: the times of the whole network, in which ``gathered`` stands for the lowerings that
            the products' own times choose. None where there is nothing to choose.
        doubts: reasons not to trust the times, such as other work on the machine.
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
        """Each product and the network have times at every shape."""
        times = [timed.times for timed in self.products]
        times += [] if self.network is None else [self.network]
        counts = {len(shapes) for one in times for shapes in one.seconds.values()}
        if not self.shapes or self.threads < 1 or counts - {len(self.shapes)}:
            raise BadReport("the tuning's shapes and times do not fit together", fix=_AGAIN)

    @property
    def where(self) -> str:
        """Machine, threads and runtime, such as ``AMD EPYC, 2 threads, openvino``."""
        return f"{self.machine}, {counted(self.threads, 'thread')}, {self.runtime}"

    @property
    def decides(self) -> bool:
        """Whether the times decide anything, which needs a product that could be gathered."""
        return any("gathered" in timed.times.seconds for timed in self.products)

    @property
    def network_seconds(self) -> tuple[float, ...]:
        """Seconds of the network in its chosen lowering, at each shape; empty without a network."""
        return () if self.network is None else self.network.medians(self.network.chosen)

    def times_of(self, product: TimedProduct) -> Times:
        """The times of a product.

        Raises:
            BadReport: it was not timed.
        """
        for timed in self.products:
            if timed.product == product:
                return timed.times
        raise BadReport("the tuning lacks a product of this checkpoint", got=product, fix=_AGAIN)

    def refuse_other(self, checkpoint_sha256: str) -> None:
        """Refuse times of another checkpoint, whose matrices keep other inputs.

        Raises:
            BadReport: the tuning was measured for other weights.
        """
        if self.checkpoint_sha256 != checkpoint_sha256:
            raise BadReport(
                "the tuning was measured for other weights",
                got=f"SHA-256 {self.checkpoint_sha256[:12]}, expected {checkpoint_sha256[:12]}",
                fix=_AGAIN,
            )

    def refuse_precision(self, precision: Precision) -> None:
        """Refuse times in another precision, whose dense products have another rate.

        Raises:
            BadReport: the tuning was measured in another precision.
        """
        if self.precision is not precision:
            raise BadReport(
                "the tuning was measured in another precision",
                got=f"{self.precision}, to export {precision}",
                fix=f"{_AGAIN} --precision {precision}",
            )

    def to_json(self) -> dict[str, Any]:
        """The content of ``tuning.json``, with the number of its schema."""
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


def fastest_tuning(tunings: Sequence[Tuning]) -> Tuning:
    """The tuning with the fastest network, of several runtimes' tunings of one checkpoint.

    The first is kept unless another is clearly faster, and where nothing was timed.
    """
    return tunings[first_unless_faster([one.network_seconds or (1.0,) for one in tunings])]


def read_tuning(file: Path) -> Tuning:
    """Read ``tuning.json``.

    Raises:
        BadReport: no such file, or one that is damaged.
    """
    return Tuning.from_json(read_json(file, error=BadReport, fix=_AGAIN))
