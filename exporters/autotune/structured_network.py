"""The network of a structured model with drawn weights, as an export of one writes it."""

from collections.abc import Mapping

import numpy as np

from exporters.classifier_weights import ClassifierWeights
from exporters.lowering.choice import LoweringChoice
from exporters.lowering.compact import Compact
from exporters.lowering.dense import Dense
from spd_deploy.domain.encoder import Matrix
from spd_deploy.domain.structures import Structures

_REASON = "timed for a latency table"


def structured_choices(
    weights: ClassifierWeights, structures: Structures
) -> Mapping[str, LoweringChoice]:
    """For each matrix, the product of what remains where each layer keeps its first structures."""
    return {
        matrix.name: _kept(weights, matrix, structures) for matrix in weights.encoder.matrices()
    }


def _kept(weights: ClassifierWeights, matrix: Matrix, structures: Structures) -> LoweringChoice:
    """What remains of one matrix: compact, or dense where nothing was removed."""
    inner = matrix.role in ("intermediate", "output")
    kept = structures.neurons[matrix.layer] if inner else structures.heads[matrix.layer]
    size = kept if inner else kept * weights.encoder.head_size
    rows, columns = (np.arange(n) for n in matrix.shape)
    if matrix.role in ("attention_output", "output"):
        columns = columns[:size]
    else:
        rows = rows[:size]
    whole_NK = weights.of(matrix)
    if whole_NK.shape == (len(rows), len(columns)):
        return LoweringChoice(lowering=Dense.of(matrix, whole_NK), reason=_REASON)
    part = Dense.of(matrix, whole_NK[: len(rows), : len(columns)])
    compact = Compact.of(matrix, part, rows=rows, columns=columns)
    return LoweringChoice(lowering=compact, reason=_REASON)
