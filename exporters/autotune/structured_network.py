"""The network of a structured model with drawn weights, as an export of one writes it."""

from collections.abc import Mapping

import numpy as np

from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.choice import LoweringChoice
from exporters.lowering.compact import Compact
from exporters.lowering.dense import Dense
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.models.architecture import FEED_FORWARD, READERS
from spd_deploy.domain.structures import Structures

_REASON = "timed for a latency table"


def structured_choices(
    weights: ClassifierWeights, structures: Structures
) -> Mapping[str, LoweringChoice]:
    """For each matrix, the product of what remains where each layer keeps so many structures.

    Layers keep different heads, as those of a pruned model do: each takes its own from what all
    layers share, such as biases by relative position.
    """
    return {
        matrix.name: _kept(weights, matrix, structures) for matrix in weights.encoder.matrices()
    }


def _kept(weights: ClassifierWeights, matrix: Matrix, structures: Structures) -> LoweringChoice:
    """The lowering of what remains of a matrix: compact, or dense where nothing was removed."""
    inner = matrix.role in FEED_FORWARD
    kept = structures.neurons[matrix.layer] if inner else structures.heads[matrix.layer]
    width = weights.encoder.unit_width(matrix.role)
    first = 0 if inner else matrix.layer * width
    rows, columns = (np.arange(n) for n in matrix.shape)
    if matrix.role in READERS:
        columns = np.sort(np.roll(columns, -first)[: kept * width])
    else:
        rows = np.sort(np.roll(rows, -first)[: kept * width])
    whole_NK = weights.of(matrix)
    if whole_NK.shape == (len(rows), len(columns)):
        return LoweringChoice(lowering=Dense.of(matrix, whole_NK), reason=_REASON)
    part = Dense.of(matrix, whole_NK[np.ix_(rows, columns)])
    compact = Compact.of(matrix, part, rows=rows, columns=columns)
    return LoweringChoice(lowering=compact, reason=_REASON)
