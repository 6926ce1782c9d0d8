"""Sparsity patterns as frozen values that refuse bad arguments when they are made, a file each.

A pattern says which zeros of a weight matrix are allowed to be where, so that a kernel or a
smaller matrix can profit from them. Every pattern has

    sparsity          share of zeros
    fixed_sparsity    whether the pattern alone decides the sparsity
    structured        whether whole heads and neurons go, so that coupled matrices shrink together
    block_shape       rows and columns that are zero only together; (1, 1) for single weights
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

Torch is imported inside the methods, so a server may import this package without having it.
"""

from spd_deploy.domain.patterns.block import Block
from spd_deploy.domain.patterns.n_m import NM
from spd_deploy.domain.patterns.pattern import (
    PATTERN_EXAMPLES,
    PATTERN_SYNTAX,
    Pattern,
    at_sparsity,
    parse_pattern,
)
from spd_deploy.domain.patterns.structured import Structured
from spd_deploy.domain.patterns.unstructured import Unstructured

__all__ = [
    "NM",
    "PATTERN_EXAMPLES",
    "PATTERN_SYNTAX",
    "Block",
    "Pattern",
    "Structured",
    "Unstructured",
    "at_sparsity",
    "parse_pattern",
]
