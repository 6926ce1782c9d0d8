"""The projected relative positions of a layer with disentangled attention, folded to constants.

Transformers projects the table of relative positions at every run, in every layer. It depends on
weights alone, so it is projected here, once.
"""

from dataclasses import dataclass

import numpy as np

from exporters.classifier_weights import Array, ClassifierWeights
from exporters.lowering.compact import Heads
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.models.architecture import Role


@dataclass(frozen=True, kw_only=True, slots=True)
class PositionTables:
    """The factors of queries and keys, ``[A, D, U]``: a column for each row of the table.

    The scale of the scores is in them.

    Attributes:
        key_ADU: for queries (c2p); None where scores have no such term.
        query_ADU: for keys (p2c).
    """

    key_ADU: Array | None
    query_ADU: Array | None

    @classmethod
    def of(cls, weights: ClassifierWeights, layer: int, heads: Heads) -> "PositionTables | None":
        """The tables of the heads that a layer keeps.

        None where it keeps none, or where attention is not disentangled.
        """
        encoder = weights.encoder
        if (disentangled := encoder.disentangled) is None or not heads:
            return None
        table_UH = _normed_table(weights)
        rows = _rows_of(encoder, heads)

        def projected(role: Role, wanted: bool) -> Array | None:
            if not wanted:
                return None
            (matrix,) = (m for m in encoder.matrices() if m.layer == layer and m.role == role)
            weight_NH, bias_N = weights.of(matrix)[rows], weights.bias(matrix.name)[rows]
            value_NU = weight_NH @ table_UH.T + bias_N[:, None]
            value_NU *= np.float32(disentangled.scale(encoder.head_size))
            return np.ascontiguousarray(value_NU.reshape(len(heads), encoder.head_size, -1))

        return cls(
            key_ADU=projected("key", disentangled.content_to_position),
            query_ADU=projected("query", disentangled.position_to_content),
        )


def _normed_table(weights: ClassifierWeights) -> Array:
    """The table ``[U, H]`` after its norm, if it has one."""
    encoder = weights.encoder
    disentangled = encoder.disentangled
    assert disentangled is not None  # noqa: S101 - callers ask only where there is one
    table_UH = weights.weight(f"{encoder.base}.{disentangled.table}")
    if not disentangled.normed:
        return table_UH
    scale_H, shift_H, epsilon = weights.norm(f"{encoder.base}.{disentangled.norm}")
    wide_UH = table_UH.astype(np.float64)
    centred_UH = wide_UH - wide_UH.mean(1, keepdims=True)
    deviation_U1 = np.sqrt((centred_UH**2).mean(1, keepdims=True) + epsilon)
    return np.asarray(centred_UH / deviation_U1 * scale_H + shift_H, np.float32)


def _rows_of(encoder: Encoder, heads: Heads) -> list[int]:
    """The rows of these heads in a query or key matrix."""
    D = encoder.head_size
    return [head * D + feature for head in heads for feature in range(D)]
