"""The dense baseline of an artefact: a model of the same sizes with random dense weights.

The time of a dense product does not depend on the numbers in it. So the baseline of a sparse model
needs no trained teacher: random weights of the same shapes do, in the graph that ``spd export``
writes for a dense checkpoint. Sizes that the manifest does not hold, such as the width of the
embeddings, are read from the artefact's graph.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from exporters.classifier_weights import Array, ClassifierWeights
from exporters.lowering.choice import LoweringChoice
from exporters.lowering.dense import Dense
from exporters.onnx.classifier_graph import ClassifierGraph
from exporters.onnx.storage import write_graphs
from spd_deploy.domain.architectures import architecture_of, expected_shapes
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import read_config
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.layers import Shapes
from spd_deploy.domain.model_config import activation_of, epsilon_of
from spd_deploy.sessions.onnxruntime import MODEL_FILE

# Large enough that no activation becomes a denormal number, small enough that none overflows.
_SCALE = 0.05


def write_dense_baseline(artefact: Artefact, folder: Path) -> Path:
    """Write the baseline for ONNX Runtime into ``folder``; returns the file of its graph.

    Raises:
        BadArtefact: the artefact has another format than onnx.
        NotWritten: no space, or no permission.
    """
    weights = dense_baseline_weights(artefact)
    choices = {
        matrix.name: LoweringChoice(
            lowering=Dense.of(matrix, weights.of(matrix)), reason="dense baseline"
        )
        for matrix in weights.encoder.matrices()
    }
    write_graphs(folder, {MODEL_FILE: ClassifierGraph(weights, choices)})
    return folder / MODEL_FILE


def dense_baseline_weights(artefact: Artefact) -> ClassifierWeights:
    """Random dense weights of the artefact's sizes.

    Raises:
        BadArtefact: the artefact has another format than onnx.
    """
    encoder = artefact.encoder
    config = read_config(artefact.folder)
    shapes = expected_shapes(encoder, artefact.task.outputs, _tables(artefact, encoder))
    return ClassifierWeights(
        encoder=encoder,
        architecture=architecture_of(encoder),
        tensors=_random(shapes),
        activation=activation_of(encoder, config),
        epsilon=epsilon_of(encoder, config),
    )


def _tables(artefact: Artefact, encoder: Encoder) -> Shapes:
    """The shapes of the embedding tables, under their names in a checkpoint."""
    if artefact.manifest.format != "onnx":
        raise BadArtefact(
            "only an onnx artefact has a dense baseline",
            got=f"format {artefact.manifest.format!r}",
            fix="export the checkpoint with --format onnx",
        )
    import onnx

    stored = onnx.load(artefact.folder / MODEL_FILE, load_external_data=False)
    dims = {c.name: tuple(c.dims) for c in stored.graph.initializer}
    base = f"{encoder.base}.embeddings"
    named = {"word": "word_embeddings", "type": "token_type_embeddings"}
    return {
        f"{base}.{table}.weight": dims[f"embeddings.{short}"]
        for short, table in named.items()
        if f"embeddings.{short}" in dims
    }


def _random(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Random numbers of the given shapes; layer norms scale by 1.

    No two matrices are equal: equal ones would share memory, and so the cache, which those of a
    trained model do not.
    """
    generator = np.random.default_rng(0)
    tensors: dict[str, Array] = {}
    for name, shape in shapes.items():
        if name.endswith(("LayerNorm.weight", "layer_norm.weight")):
            tensors[name] = np.ones(shape, np.float32)
        else:
            tensors[name] = _SCALE * (2 * generator.random(shape, np.float32) - 1)
    return tensors
