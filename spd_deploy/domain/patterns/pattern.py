"""The union of all patterns, and how the command line spells them."""

import math
import re
from dataclasses import replace
from typing import assert_never

from spd_deploy.domain.errors import BadPattern
from spd_deploy.domain.patterns.block import Block
from spd_deploy.domain.patterns.n_m import NM
from spd_deploy.domain.patterns.selection import refuse_sparsity
from spd_deploy.domain.patterns.structured import Structured
from spd_deploy.domain.patterns.unstructured import Unstructured

Pattern = Unstructured | NM | Block | Structured

# One spelling of each kind of pattern.
PATTERN_EXAMPLES = ("unstructured", "2:4", "block:64x1", "structured")
PATTERN_SYNTAX = "unstructured, N:M such as 2:4, block:RxC such as block:64x1, or structured"


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
    refuse_sparsity(sparsity)
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
