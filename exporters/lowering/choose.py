"""Which lowering each matrix gets, and why: a pure function of the pattern and the weights.

Without a measurement on the target a cost model decides (``lowering.gathered``); the reason is
written down for ``spd inspect``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporters.lowering.compact import Compact
from exporters.lowering.dense import Dense
from exporters.lowering.gathered import LEAST_GAIN, Gathered
from exporters.weights import BertWeights
from spd_deploy.domain.encoder import Encoder, Matrix
from spd_deploy.domain.patterns import NM, Block, Pattern, Structured, Unstructured

Lowering = Dense | Compact | Gathered


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A matrix's lowering with the reason for it."""

    lowering: Lowering
    reason: str


def choose(weights: BertWeights, pattern: Pattern | None) -> dict[str, Choice]:
    """A choice for every prunable matrix, by its name."""
    encoder = weights.encoder
    match pattern:
        case Structured():
            return dict(
                choice
                for layer in range(encoder.layers)
                for choice in _compact_layer(weights, layer).items()
            )
        case _:
            return {m.name: _choose_one(m, weights.of(m), pattern) for m in encoder.matrices()}


def _choose_one(matrix: Matrix, weight_NK: NDArray[np.float32], pattern: Pattern | None) -> Choice:
    """The choice for a matrix that stands alone."""
    dense = Dense.of(matrix, weight_NK)
    match pattern:
        case None:
            return Choice(lowering=dense, reason="dense weights")
        case Unstructured():
            return Choice(
                lowering=dense,
                reason="unstructured: ONNX Runtime does not skip single zeros, it multiplies them",
            )
        case NM(n=n, m=m):
            return Choice(
                lowering=dense,
                reason=f"{n}:{m} needs sparse tensor cores: ONNX Runtime has no kernel for it, "
                "so its zeros are multiplied",
            )
        case Block():
            return _choose_block(matrix, weight_NK, pattern, dense)
        case Structured():
            raise AssertionError("structured matrices are chosen by the layer")


def _choose_block(
    matrix: Matrix, weight_NK: NDArray[np.float32], block: Block, dense: Dense
) -> Choice:
    """Gathered where the cost model promises a gain."""
    gathered = Gathered.of(matrix, weight_NK, block)
    gain = gathered.expected_gain
    if gain < LEAST_GAIN:
        return Choice(
            lowering=dense,
            reason=f"gathered would be {gain:.1f}x the dense speed by the cost model: with "
            f"{block.rows} rows a block, copying the kept inputs costs more than it saves",
        )
    return Choice(
        lowering=gathered,
        reason=f"{block.rows} outputs at a time read the {gathered.flops_share:.0%} of inputs "
        f"they kept; the cost model promises {gain:.1f}x",
    )


def _compact_layer(weights: BertWeights, layer: int) -> dict[str, Choice]:
    """One layer without the heads and neurons that are wholly zero.

    A head or neuron goes only where its rows and the columns that read them are all zero: rows that
    nothing reads could go as well, but then the artefact would not hold the checkpoint's weights.
    """
    encoder = weights.encoder
    of_layer = {m.role: m for m in encoder.matrices() if m.layer == layer}
    of = {role: weights.of(matrix) for role, matrix in of_layer.items()}
    attention = (of["query"].T, of["key"].T, of["value"].T, of["attention_output"])
    heads = _alive(attention, encoder.head_size)
    neurons = _alive((of["intermediate"].T, of["output"]), 1)
    everything: NDArray[np.int64] = np.arange(encoder.hidden)
    kept: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {
        "query": (heads, everything),
        "key": (heads, everything),
        "value": (heads, everything),
        "attention_output": (everything, heads),
        "intermediate": (neurons, everything),
        "output": (everything, neurons),
    }
    reasons = _reasons(encoder, len(heads), len(neurons))
    found = {}
    for role, matrix in of_layer.items():
        rows, columns = kept[role]
        lowering = Compact.of(matrix, of[role], rows=rows, columns=columns)
        part = "neurons" if role in ("intermediate", "output") else "heads"
        found[matrix.name] = Choice(lowering=lowering, reason=reasons[part])
    return found


def _alive(coupled: Sequence[NDArray[np.float32]], width: int) -> NDArray[np.int64]:
    """The columns in slices of ``width`` with anything non-zero in any of the matrices."""
    alive_K = np.logical_or.reduce([(weight != 0).any(0) for weight in coupled])
    alive_U = alive_K.reshape(-1, width).any(1)
    return np.flatnonzero(np.repeat(alive_U, width))


def _reasons(encoder: Encoder, head_columns: int, neurons: int) -> dict[str, str]:
    """How much of a layer is left, in words."""
    heads = head_columns // encoder.head_size
    return {
        "heads": f"{heads} of {encoder.heads} heads are left",
        "neurons": f"{neurons} of {encoder.intermediate} neurons are left",
    }
