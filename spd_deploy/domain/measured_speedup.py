"""How many times as fast as the dense model a sparse one was measured to be."""

from dataclasses import dataclass
from statistics import geometric_mean, median

from spd_deploy.domain.errors import BadReport
from spd_deploy.domain.shapes import Shape, mean_gain

# A model keeps its promised speed-up if at least this share of it is measured.
KEPT = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredSpeedup:
    """Seconds of a dense and of a sparse model that were timed in turns.

    Attributes:
        dense_rounds_s: of the dense model: for each shape, one median a round.
        sparse_rounds_s: of the sparse model, as many.
        where: machine, runtime, precision and shapes, as text.
    """

    shapes: tuple[Shape, ...]
    dense_rounds_s: tuple[tuple[float, ...], ...]
    sparse_rounds_s: tuple[tuple[float, ...], ...]
    where: str

    def __post_init__(self) -> None:
        """Both have as many rounds at every shape."""
        both = (self.dense_rounds_s, self.sparse_rounds_s)
        counts = [[len(r) for r in rounds] for rounds in both]
        if counts[0] != counts[1] or len(counts[0]) != len(self.shapes) or not all(counts[0]):
            raise BadReport("a speed-up with rounds missing", got=counts, fix="measure again")

    @property
    def dense_s(self) -> float:
        """Seconds of the dense model: the geometric mean over the shapes."""
        return geometric_mean(map(median, self.dense_rounds_s))

    @property
    def sparse_s(self) -> float:
        """Seconds of the sparse model: the geometric mean over the shapes."""
        return geometric_mean(map(median, self.sparse_rounds_s))

    @property
    def ratios(self) -> tuple[float, ...]:
        """How many times as fast the sparse model is at each shape, by the medians of rounds."""
        pairs = zip(self.dense_rounds_s, self.sparse_rounds_s, strict=True)
        return tuple(median(dense) / median(sparse) for dense, sparse in pairs)

    @property
    def ratio(self) -> float:
        """The geometric mean over the shapes, as in a latency table."""
        return mean_gain(self.ratios)

    def sentence(self, speedup: float) -> str:
        """What was measured, beside the speed-up that was wanted."""
        found = f"{self.ratio:.2f} times as fast as dense ({1e3 * self.sparse_s:.1f} of "
        found += f"{1e3 * self.dense_s:.1f} ms, {self.where})"
        if self.ratio >= KEPT * speedup:
            return found
        return f"{found}: {1 - self.ratio / speedup:.0%} short of {speedup:g}"
