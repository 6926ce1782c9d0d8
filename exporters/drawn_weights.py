"""Random dense weights of a model's sizes, to time networks that need not have learned anything.

The time of a dense product does not depend on the numbers in it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from exporters.classifier_weights import Array, ClassifierWeights
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.export_shapes import architecture_of, expected_shapes
from spd_deploy.domain.layers import Shapes
from spd_deploy.domain.model_config import activation_of, epsilon_of

# Large enough that no activation becomes a denormal number, small enough that none overflows.
_SCALE = 0.05


def drawn_weights(
    encoder: Encoder,
    config: Mapping[str, Any],
    *,
    outputs: int,
    tables: Shapes,
    max_tokens: int | None = None,
) -> ClassifierWeights:
    """Random weights of a classifier with so many outputs.

    ``tables`` are the shapes of the embedding tables, under their names in a checkpoint. Rows have
    ``max_tokens`` at most, by default as many as the encoder has positions.

    Raises:
        BadModel: an architecture or activation that cannot be exported.
    """
    return ClassifierWeights(
        encoder=encoder,
        architecture=architecture_of(encoder),
        tensors=_random(expected_shapes(encoder, outputs, tables)),
        activation=activation_of(encoder, config),
        epsilon=epsilon_of(encoder, config),
        max_tokens=encoder.positions if max_tokens is None else max_tokens,
    )


def _random(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Random numbers of the given shapes; layer norms scale by 1.

    No two matrices are equal: equal ones would share memory, and so the cache, which those of a
    trained model do not.
    """
    generator = np.random.default_rng(0)
    tensors: dict[str, Array] = {}
    for name, shape in shapes.items():
        if len(shape) == 1 and name.endswith(".weight"):
            tensors[name] = np.ones(shape, np.float32)
        else:
            tensors[name] = _SCALE * (2 * generator.random(shape, np.float32) - 1)
    return tensors
