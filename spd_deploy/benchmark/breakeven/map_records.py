"""The break-even map: times of dense and sparse products on a machine, by pattern and sparsity.

``map.json`` holds all of it. Gains and a layer's totals are computed from it (``ranking``). Each
cell is one product:

    shape       [outputs, inputs] of the matrix
    tokens      in one row
    pattern     as the command line spells it
    sparsity    share of zeros
    precision   of the product, dense and sparse: fp32 or int8 on a CPU, half on a GPU
    dense_s     seconds of the dense product, the median of each round
    sparse_s    of the sparse one, in the same rounds; empty where nothing skips the zeros
    reason      why the sparse product has no times
    kernel      of a GPU: what skips the zeros (``product_kernels``); empty on a CPU, which has one
    runtime     that ran both on a CPU; empty on a GPU, where PyTorch runs all

On a GPU the seconds are by its own clock (``time_on_gpu``).

History of the schema:
    1   the first; ``way``, ``device``, ``looks`` and ``effort`` without threads came with GPUs,
        and a map without them is of a CPU; several precisions in one map came with int8.
    2   ``runtime`` and ``runtimes``: before, a CPU's map was of ONNX Runtime and did not say so.
    3   ``states`` was ``looks``.
    4   ``settings`` was ``effort``.
    5   ``kernel`` was ``way``, and its value ``triton`` was ``kernel``.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

from spd_deploy.domain.documents import text_of, versioned
from spd_deploy.domain.errors import BadReport
from spd_deploy.domain.files import read_json
from spd_deploy.domain.nvidia import GpuState
from spd_deploy.machine.facts import Machine
from spd_deploy.sessions.protocol import Device
from spd_deploy.timing.machine_load import Conditions

SCHEMA = 5
_AGAIN = "measure again with: spd map"
MatrixShape = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class MapMatrix:
    """A size of matrix, and how many of that size a layer of the model has."""

    shape: MatrixShape
    count: int

    def __post_init__(self) -> None:
        """Sizes and count are at least 1."""
        if min(*self.shape, self.count) < 1:
            raise BadReport("a matrix without weights", got=self, fix="use sizes of at least 1")

    def __str__(self) -> str:
        """Outputs x inputs, such as ``768x3072``."""
        return f"{self.shape[0]}x{self.shape[1]}"


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class MapRow:
    """A row of the map: a pattern at a sparsity, by one kernel, runtime and precision."""

    pattern: str
    sparsity: float
    precision: str
    kernel: str = ""
    runtime: str = ""

    @property
    def line(self) -> str:
        """The row without its sparsity: the pattern, and how it is run."""
        return ", ".join((self.pattern, *self._how))

    def __str__(self) -> str:
        """Such as ``block:64x1 at 75%, openvino, int8``; on a GPU with its kernel in the middle."""
        return ", ".join((f"{self.pattern} at {100 * self.sparsity:g}%", *self._how))

    @property
    def _how(self) -> tuple[str, ...]:
        """The kernel, where there are several, the runtime on a CPU, and the precision."""
        return tuple(filter(None, (self.kernel, self.runtime, self.precision)))

    @property
    def dense(self) -> str:
        """The dense products that it is compared with, such as ``dense, openvino, int8``."""
        return ", ".join(filter(None, ("dense", self.runtime, self.precision)))


@dataclass(frozen=True, kw_only=True, slots=True)
class MapCell:
    """One product, dense and sparse; the fields are explained in the module."""

    shape: MatrixShape
    tokens: int
    pattern: str
    sparsity: float
    precision: str
    dense_s: tuple[float, ...]
    sparse_s: tuple[float, ...]
    reason: str
    kernel: str = ""
    runtime: str = ""

    def __post_init__(self) -> None:
        """Times are durations; a sparse product has as many as the dense one, or a reason."""
        fine = self.dense_s and all(0 < s < math.inf for s in (*self.dense_s, *self.sparse_s))
        complete = len(self.sparse_s) == len(self.dense_s) or (not self.sparse_s and self.reason)
        if not fine or not complete or self.tokens < 1 or not 0 < self.sparsity < 1:
            raise BadReport("a cell of the map is not whole", got=self, fix=_AGAIN)

    @property
    def row(self) -> MapRow:
        """The row of the map that it is in."""
        return MapRow(
            pattern=self.pattern,
            sparsity=self.sparsity,
            precision=self.precision,
            kernel=self.kernel,
            runtime=self.runtime,
        )

    @property
    def measured(self) -> bool:
        """Whether a sparse product was timed."""
        return bool(self.sparse_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class MapGain:
    """How many times as fast as another product.

    Attributes:
        sure: whether all rounds are on the same side of 1.
        measured: False where nothing skips the zeros, which is a gain of 1 without measuring.
    """

    ratio: float
    sure: bool = True
    measured: bool = True

    def __str__(self) -> str:
        """Such as ``2.3``; ``~1.0`` where the rounds disagree about who is faster."""
        digits = 2 if self.ratio < 1.95 and self.measured else 1
        return f"{'' if self.sure else '~'}{self.ratio:.{digits}f}"


@dataclass(frozen=True, kw_only=True, slots=True)
class MapSettings:
    """Settings of a map: threads (None on a GPU), rounds, seconds for each product and length."""

    threads: int | None
    rounds: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakEvenMap:
    """The times of all products, and how they were measured.

    Attributes:
        model: whose sizes these are; None for sizes of the user's own.
        states: of a GPU, read while it was measured.
        runtimes: what ran the products on a CPU, each with its version.
    """

    created: str
    machine: Machine
    conditions: Conditions
    settings: MapSettings
    model: str | None
    parts: tuple[MapMatrix, ...]
    cells: tuple[MapCell, ...]
    device: Device = "cpu"
    states: tuple[GpuState, ...] = ()
    runtimes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Every part has a cell for each number of tokens and row, once, in a runtime named."""
        keys = [(cell.shape, cell.tokens, cell.row) for cell in self.cells]
        wanted = list(product([part.shape for part in self.parts], self.tokens, self.rows))
        ran = {cell.runtime for cell in self.cells}
        named = set(self.runtimes) if self.device == "cpu" else {""}
        if not keys or sorted(keys) != sorted(wanted) or ran != named:
            raise BadReport("the map's parts and cells do not fit together", fix=_AGAIN)

    @property
    def tokens(self) -> tuple[int, ...]:
        """Numbers of tokens, fewest first."""
        return tuple(sorted({cell.tokens for cell in self.cells}))

    @property
    def rows(self) -> tuple[MapRow, ...]:
        """Patterns as they were asked for, each from the least sparsity to the most."""
        found = dict.fromkeys(cell.row for cell in self.cells)
        order = list(dict.fromkeys(row.line for row in found))
        return tuple(sorted(found, key=lambda row: (order.index(row.line), row.sparsity)))

    @property
    def lines(self) -> tuple[str, ...]:
        """Patterns with how they are run, in the order of the rows."""
        return tuple(dict.fromkeys(row.line for row in self.rows))

    @property
    def precisions(self) -> tuple[str, ...]:
        """In the order of the rows."""
        return tuple(dict.fromkeys(row.precision for row in self.rows))

    @property
    def dense_rows(self) -> tuple[MapRow, ...]:
        """For each kind of dense product, the first row that is compared with it."""
        first = {row.dense: row for row in reversed(self.rows)}
        return tuple(row for row in self.rows if first[row.dense] == row)

    def cell(self, part: MapMatrix, tokens: int, row: MapRow) -> MapCell:
        """The cell of a size of matrix, a number of tokens and a row."""
        wanted = (part.shape, tokens, row)
        return next(c for c in self.cells if (c.shape, c.tokens, c.row) == wanted)

    @property
    def reasons(self) -> dict[str, str]:
        """Why nothing skips the zeros, by line; one reason where sizes differ in it."""
        return {cell.row.line: cell.reason for cell in self.cells if cell.reason}


def text_from_map(found: BreakEvenMap) -> str:
    """The JSON document; a list of numbers on one line."""
    return text_of({"schema": SCHEMA, **asdict(found)})


def read_map(file: Path) -> BreakEvenMap:
    """Read what :func:`text_from_map` wrote.

    Raises:
        BadReport: no such file, another schema, or a value missing or of the wrong kind.
    """
    value = read_json(file, error=BadReport, fix=_AGAIN)
    other = f"use the version of spd that wrote it; this one reads schema {SCHEMA}"
    return versioned(
        BreakEvenMap, value, SCHEMA, what=file, error=BadReport, fix=_AGAIN, other=other
    )
