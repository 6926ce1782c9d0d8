"""Sparsity patterns as frozen values that refuse nonsense at birth.

A pattern says which zeros of a weight matrix are allowed to be where, so that a kernel or a
smaller matrix can profit from them. Every pattern has

    sparsity          share of zeros
    fixed_sparsity    whether the pattern alone decides the sparsity
    structured        whether whole heads and neurons go, so that coupled matrices shrink together
    check(shape)      refuses a matrix that the pattern does not fit
    mask(score, s)    the mask of highest total score at sparsity s
    holds(weight)     whether a weight satisfies the pattern
    str(pattern)      its one spelling on the command line

    unstructured    any weight may go                                     Unstructured
    2:4             2 of every 4 consecutive inputs of an output stay     NM
    block:64x1      each group of 64 output rows keeps the same number
                    of blocks, each one input wide                        Block
    structured      whole attention heads and feed-forward neurons go     Structured

Weights are in PyTorch's layout ``[N, K]``: N outputs, K inputs. U counts the units, which are
kept or pruned as a whole (weights, blocks or slices), G the groups that a choice is made in.

A function that differs by pattern asks one of these, or matches all patterns and ends in
``assert_never``, so that the type checker names each place that a new pattern has to decide.

Torch is imported inside the methods, so a server may import this file without having it.
"""

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self, assert_never

from spd_deploy.domain.errors import BadPattern

if TYPE_CHECKING:
    from torch import Tensor

# One spelling of each kind of pattern.
PATTERN_EXAMPLES = ("unstructured", "2:4", "block:64x1", "structured")
PATTERN_SYNTAX = "unstructured, N:M such as 2:4, block:RxC such as block:64x1, or structured"


@dataclass(frozen=True, kw_only=True, slots=True)
class Unstructured:
    """Any weight may be zero."""

    fixed_sparsity: ClassVar[bool] = False
    structured: ClassVar[bool] = False
    sparsity: float = 0.9

    def __post_init__(self) -> None:
        """Refuse a sparsity outside (0, 1)."""
        _refuse_sparsity(self.sparsity)

    def __str__(self) -> str:
        """The command line's spelling."""
        return "unstructured"

    def check(self, shape: tuple[int, int]) -> None:
        """Any shape will do."""

    def mask(self, score_NK: "Tensor", sparsity: float) -> "Tensor":
        """Keep the highest scores of the matrix; a tie goes to the earlier weight."""
        kept = _kept(score_NK.numel(), sparsity)
        return _highest(score_NK.reshape(1, -1), kept).reshape(score_NK.shape)

    def holds(self, weight_NK: "Tensor") -> bool:
        """Whether at most the promised share of weights is non-zero."""
        kept = _kept(weight_NK.numel(), self.sparsity)
        return int(weight_NK.count_nonzero()) <= kept


@dataclass(frozen=True, kw_only=True, slots=True)
class NM:
    """Keep ``n`` of every ``m`` consecutive inputs of each output row."""

    fixed_sparsity: ClassVar[bool] = True
    structured: ClassVar[bool] = False
    n: int
    m: int

    def __post_init__(self) -> None:
        """Refuse patterns that keep nothing or everything."""
        if not 0 < self.n < self.m:
            raise BadPattern(
                "an N:M pattern must keep some weights and drop some",
                got=f"{self.n}:{self.m}",
                fix="use 0 < N < M, for example 2:4",
            )

    def __str__(self) -> str:
        """The command line's spelling."""
        return f"{self.n}:{self.m}"

    @property
    def sparsity(self) -> float:
        """Share of zeros: fixed by the pattern."""
        return 1 - self.n / self.m

    def check(self, shape: tuple[int, int]) -> None:
        """Refuse a matrix whose inputs do not split into groups of ``m``."""
        if shape[1] % self.m:
            raise BadPattern(
                f"{self} needs a number of inputs that {self.m} divides",
                got=f"a matrix of {shape[0]}x{shape[1]} (outputs x inputs)",
                fix="choose another pattern, or a model whose sizes it divides",
            )

    def mask(self, score_NK: "Tensor", sparsity: float) -> "Tensor":
        """Keep the ``n`` highest of each group of ``m``, or more of them on the way there.

        Below the final sparsity only the ``m - n`` lowest of each group may go, the lowest of
        the whole matrix first, so that every mask of a rising schedule leads to a valid last one.
        """
        self.check(_shape(score_NK))
        score_GM = score_NK.reshape(-1, self.m)
        mask_GM = _highest(score_GM, self.n)
        drop = round(score_NK.numel() * min(sparsity, self.sparsity))
        candidates = score_NK.numel() - int(mask_GM.sum())
        if drop < candidates:
            safe_GM = score_GM.masked_fill(mask_GM, math.inf)
            mask_GM = _highest(safe_GM.reshape(1, -1), score_NK.numel() - drop)
        return mask_GM.reshape(score_NK.shape)

    def holds(self, weight_NK: "Tensor") -> bool:
        """Whether every group of ``m`` inputs has at most ``n`` non-zeros."""
        if weight_NK.shape[1] % self.m:
            return False
        kept_G = (weight_NK.reshape(-1, self.m) != 0).sum(1)
        return bool((kept_G <= self.n).all())


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Keep whole blocks of ``rows`` x ``columns``, the same number in every group of rows.

    The balance is what makes it fast: each group of ``rows`` outputs reads equally many inputs,
    so all groups run as one batched product (``exporters.lowering.gathered``).
    """

    fixed_sparsity: ClassVar[bool] = False
    structured: ClassVar[bool] = False
    rows: int
    columns: int
    sparsity: float = 0.75

    def __post_init__(self) -> None:
        """Refuse empty blocks and a sparsity outside (0, 1)."""
        if self.rows < 1 or self.columns < 1:
            raise BadPattern(
                "a block needs at least one row and one column",
                got=f"{self.rows}x{self.columns}",
                fix="for example block:64x1",
            )
        _refuse_sparsity(self.sparsity)

    def __str__(self) -> str:
        """The command line's spelling."""
        return f"block:{self.rows}x{self.columns}"

    def check(self, shape: tuple[int, int]) -> None:
        """Refuse a matrix that the block does not divide."""
        if shape[0] % self.rows or shape[1] % self.columns:
            raise BadPattern(
                f"{self} does not divide the matrix",
                got=f"{shape[0]}x{shape[1]} (outputs x inputs)",
                fix=f"choose R dividing {shape[0]} and C dividing {shape[1]}",
            )

    def mask(self, score_NK: "Tensor", sparsity: float) -> "Tensor":
        """Each group of rows keeps its blocks of highest total score; ties go to earlier ones."""
        score_GU = self.block_scores(score_NK)
        mask_GU = _highest(score_GU, _kept(score_GU.shape[1], sparsity))
        return mask_GU.repeat_interleave(self.rows, 0).repeat_interleave(self.columns, 1)

    def block_scores(self, score_NK: "Tensor") -> "Tensor":
        """Total score of each block, ``[G, U]``: U blocks in each of G groups of rows."""
        self.check(_shape(score_NK))
        return self._blocks(score_NK).sum((1, 3))

    def holds(self, weight_NK: "Tensor") -> bool:
        """Whether every group of rows has at most the promised number of non-zero blocks."""
        if weight_NK.shape[0] % self.rows or weight_NK.shape[1] % self.columns:
            return False
        kept_GU = (self._blocks(weight_NK) != 0).any(3).any(1)
        return bool((kept_GU.sum(1) <= _kept(kept_GU.shape[1], self.sparsity)).all())

    def _blocks(self, matrix_NK: "Tensor") -> "Tensor":
        """View ``[N, K]`` as ``[groups, rows, blocks, columns]``."""
        N, K = matrix_NK.shape
        return matrix_NK.reshape(N // self.rows, self.rows, K // self.columns, self.columns)


@dataclass(frozen=True, kw_only=True, slots=True)
class Structured:
    """Keep whole slices of ``width`` rows (``axis`` 0) or columns (``axis`` 1).

    A slice is one attention head's share of a matrix, or one feed-forward neuron's. Which slices
    of which matrices stand or fall together, the encoder knows (``domain.encoder``); on the
    command line the pattern has neither axis nor width. A sparsity of 1 removes all slices of one
    matrix; no model has it as a whole.
    """

    fixed_sparsity: ClassVar[bool] = False
    structured: ClassVar[bool] = True
    sparsity: float = 0.5
    axis: int = 0
    width: int = 1

    def __post_init__(self) -> None:
        """Refuse a sparsity outside (0, 1]."""
        if self.sparsity != 1:
            _refuse_sparsity(self.sparsity)

    def __str__(self) -> str:
        """The command line's spelling."""
        return "structured"

    def on(self, *, axis: int, width: int) -> Self:
        """This pattern for a matrix whose slices lie along ``axis``."""
        return replace(self, axis=axis, width=width)

    def check(self, shape: tuple[int, int]) -> None:
        """Refuse a matrix that does not split into slices."""
        if shape[self.axis] % self.width:
            raise BadPattern(
                f"slices of {self.width} do not divide the matrix",
                got=f"{shape[0]}x{shape[1]} (outputs x inputs)",
                fix="use a model whose hidden size its number of heads divides",
            )

    def mask(self, score_NK: "Tensor", sparsity: float) -> "Tensor":
        """Keep the slices of highest total score."""
        return self.spread(self.keep(self.slice_scores(score_NK), sparsity), _shape(score_NK))

    def slice_scores(self, score_NK: "Tensor") -> "Tensor":
        """Total score of each slice, ``[U]``; those of coupled matrices may be added."""
        self.check(_shape(score_NK))
        return score_NK.sum(1 - self.axis).reshape(-1, self.width).sum(1)

    def keep(self, score_U: "Tensor", sparsity: float) -> "Tensor":
        """Which of U slices stay: those of highest score, at least one below a sparsity of 1."""
        if sparsity == 1:
            return score_U != score_U
        return _highest(score_U[None], _kept(len(score_U), sparsity))[0]

    def kept(self, count: int) -> int:
        """How many of ``count`` slices stay: at least one below a sparsity of 1."""
        return 0 if self.sparsity == 1 else _kept(count, self.sparsity)

    def spread(self, keep_U: "Tensor", shape: tuple[int, int]) -> "Tensor":
        """The mask of a matrix whose slices ``keep_U`` stay."""
        lines = keep_U.repeat_interleave(self.width)
        return (lines[:, None] if self.axis == 0 else lines[None, :]).expand(shape).clone()

    def holds(self, weight_NK: "Tensor") -> bool:
        """Whether at most the promised number of slices has non-zeros."""
        if weight_NK.shape[self.axis] % self.width:
            return False
        alive_U = (weight_NK != 0).any(1 - self.axis).reshape(-1, self.width).any(1)
        return int(alive_U.sum()) <= self.kept(len(alive_U))


Pattern = Unstructured | NM | Block | Structured


def parse_pattern(text: str, sparsity: float | None = None) -> Pattern:
    """The pattern that ``text`` spells, at ``sparsity`` where the pattern leaves that open.

    Raises:
        BadPattern: unknown spelling, a sparsity outside (0, 1), or one an N:M pattern forbids.
    """
    if match := re.fullmatch(r"(\d{1,4}):(\d{1,4})", text):
        return _at_fixed(NM(n=int(match[1]), m=int(match[2])), sparsity)
    pattern: Unstructured | Block | Structured
    if match := re.fullmatch(r"block:(\d{1,6})x(\d{1,6})", text):
        pattern = Block(rows=int(match[1]), columns=int(match[2]))
    elif text == "unstructured":
        pattern = Unstructured()
    elif text == "structured":
        pattern = Structured()
    else:
        raise BadPattern("unknown pattern", got=repr(text), fix=f"use {PATTERN_SYNTAX}")
    if sparsity is None:
        return pattern
    _refuse_sparsity(sparsity)
    return at_sparsity(pattern, sparsity)


def at_sparsity(pattern: Pattern, sparsity: float) -> Pattern:
    """The pattern at another sparsity.

    Raises:
        BadPattern: a sparsity outside (0, 1), or one an N:M pattern forbids.
    """
    match pattern:
        case NM():
            return _at_fixed(pattern, sparsity)
        case Unstructured() | Block() | Structured():
            return replace(pattern, sparsity=sparsity)
        case never:
            assert_never(never)


def _at_fixed(pattern: NM, sparsity: float | None) -> NM:
    """The N:M pattern, if the sparsity given beside it is its own."""
    if sparsity is not None and not math.isclose(sparsity, pattern.sparsity, abs_tol=1e-6):
        raise BadPattern(
            f"{pattern} always has sparsity {pattern.sparsity:g}",
            got=f"--sparsity {sparsity:g}",
            fix="leave --sparsity out, or choose another pattern",
        )
    return pattern


def _refuse_sparsity(sparsity: float) -> None:
    """A sparsity is a share strictly between 0 and 1; NaN is none."""
    if not 0 < sparsity < 1:
        raise BadPattern(
            "sparsity must lie strictly between 0 and 1",
            got=f"{sparsity:g}",
            fix="for example --sparsity 0.75 for three zeros in four",
        )


def _kept(count: int, sparsity: float) -> int:
    """How many of ``count`` stay at ``sparsity``: the nearest whole number, at least one."""
    return max(1, min(count, round(count * (1 - sparsity))))


def _shape(matrix_NK: "Tensor") -> tuple[int, int]:
    """The two dimensions of a matrix."""
    N, K = matrix_NK.shape
    return N, K


def _highest(score_GU: "Tensor", kept: int) -> "Tensor":
    """Mask of the ``kept`` highest scores in each row; of equal ones, the earlier."""
    if score_GU.isnan().any():
        raise BadPattern(
            "scores hold NaN", fix="training diverged: lower --learning-rate and start again"
        )
    U = score_GU.shape[1]
    if kept >= U:
        return score_GU == score_GU
    threshold_G1 = score_GU.kthvalue(U - kept + 1, dim=1, keepdim=True).values
    above_GU = score_GU > threshold_G1
    tied_GU = score_GU == threshold_G1
    room_G1 = kept - above_GU.sum(1, keepdim=True)
    return above_GU | (tied_GU & (tied_GU.cumsum(1) <= room_G1))
