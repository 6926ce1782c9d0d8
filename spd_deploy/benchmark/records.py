"""Values of a benchmark: settings, arms and raw samples, all frozen.

An *arm* is one model in the comparison. In each *round* every arm is timed at every *shape*. The
runs of one arm at one shape in one round are a *series*. Times are seconds, sizes are bytes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from spd_deploy.domain.errors import BadReport, BadSetting
from spd_deploy.domain.shapes import Shape as Shape  # part of this vocabulary, made on the floor
from spd_deploy.domain.temperature import TemperatureScaling
from spd_deploy.sessions.protocol import Description, Device
from spd_deploy.timing.host_clock import TimeBudget, TimingSettings

# Sizes of a model that a report tells; arms that differ in them are different models.
SIZES = ("layers", "hidden", "heads", "intermediate", "vocabulary")
_WARMUP_S = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkSettings(TimingSettings):
    """Settings of a benchmark: shapes, device, and how long to measure.

    There are two rounds at least, since the spread between rounds is what an interval is made of.

    Attributes:
        threads: intra-op threads of the runtime; None leaves it to the runtime.
        seed: of the token ids.
    """

    shapes: tuple[Shape, ...]
    device: Device = "cpu"
    threads: int | None = None
    seed: int = 0
    rounds: int = 6
    seconds: float = 5.0
    max_runs: int = 500

    def __post_init__(self) -> None:
        """Refuse settings that measure nothing, or have no spread."""
        TimingSettings.__post_init__(
            self
        )  # a dataclass with slots has no super() without arguments
        if not self.shapes or self.rounds < 2:
            raise BadSetting(
                "these settings measure nothing",
                got=self,
                fix="use a shape, two rounds and some seconds",
            )

    @property
    def warmup(self) -> TimeBudget:
        """The runs before a series, which touch the session's memory for the first time."""
        seconds = min(_WARMUP_S, self.series.seconds / 4)
        return TimeBudget(seconds=seconds, at_least=self.warmup_runs, at_most=self.max_runs)

    @property
    def largest(self) -> Shape:
        """The shape with the most tokens, which needs the most memory."""
        return max(self.shapes, key=lambda shape: (shape.tokens, shape))


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """The runs of one arm at one shape in one round, in the order they were made."""

    arm: str
    shape: Shape
    round: int
    warmup_s: tuple[float, ...]
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        """A series has samples, and a run takes some finite time."""
        if not self.seconds or not all(0 < s < math.inf for s in (*self.seconds, *self.warmup_s)):
            raise BadReport(
                f"the samples of {self.arm} at {self.shape} are missing or no durations",
                fix="measure again",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """Something that was not measured, and why: an arm, a precision's peak, an arm's kernels."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidentMemory:
    """Resident memory of a process that did nothing but run one arm.

    Attributes:
        before_bytes: with Python and the runtime's library loaded, and no model yet.
        opened_bytes: with the session open.
        peak_bytes: the most it ever was, up to and with runs of the largest shape.
    """

    before_bytes: int
    opened_bytes: int
    peak_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Lowered:
    """Matrices of an arm that share a lowering and the reason for it.

    Attributes:
        weights: how many numbers these matrices hold, zeros included.
        density: share of non-zero weights among them.
        flops_share: multiplications left, as a share of the dense matrices'.
    """

    lowering: str
    reason: str
    matrices: int
    weights: int
    density: float
    flops_share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmFacts:
    """Everything that a report tells of an arm besides its speed.

    Attributes:
        name: unique among the arms; no path.
        precision: what its session computed in.
        sizes: of the model, by the names in :data:`SIZES`.
        models: SHA-256 of each file that its runtime read, by file name.
        runtime: how its session ran, as the session itself found out.
        score: the checkpoint's metrics, as the manifest has them; None marks an undefined one.
        split: what the score was measured on.
        parity: how far its logits were from its checkpoint's, before it was timed.
        memory: None where it was not measured.
        calibration: how well its scores fit what is true, as the manifest has it; None where it
            has none.
    """

    name: str
    format: str
    precision: str
    pattern: str | None
    sparsity: float | None
    task: str
    sizes: Mapping[str, int]
    models: Mapping[str, str]
    model_bytes: int
    folder_bytes: int
    runtime: Description
    lowered: tuple[Lowered, ...]
    score: Mapping[str, float | None]
    split: str | None
    parity: float
    memory: ResidentMemory | None
    calibration: TemperatureScaling | None = None

    @property
    def matrices(self) -> int:
        """How many prunable matrices it has."""
        return sum(group.matrices for group in self.lowered)

    @property
    def flops_share(self) -> float:
        """Multiplications left in all its matrices, as a share of the dense ones'."""
        left = sum(group.flops_share * group.weights for group in self.lowered)
        return left / sum(group.weights for group in self.lowered)

    @property
    def runs_dense(self) -> bool:
        """Whether every matrix is handed to the runtime whole, zeros and all."""
        return all(group.lowering == "dense" for group in self.lowered)

    @property
    def left_to_runtime(self) -> bool:
        """Whether the runtime itself may take kernels that skip the zeros of what it gets whole."""
        return self.runtime.runtime == "tensorrt"
