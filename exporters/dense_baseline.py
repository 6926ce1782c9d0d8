"""The dense twin of an artefact: a model of the same sizes in which nothing is sparse.

How long a dense product takes does not depend on the numbers in it, so the baseline of a sparse
model needs no trained teacher: random weights of the same shapes do, in the graph that ``spd
export`` writes for a dense checkpoint. What the manifest does not tell, such as how wide the
embeddings are, is read from the artefact's own graph.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from exporters.autotune.select import Choice
from exporters.classifier_weights import Array, ClassifierWeights
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


def write_twin(artefact: Artefact, folder: Path) -> Path:
    """Write the twin's graph for ONNX Runtime, and its weights beside it; returns the graph.

    Raises:
        BadArtefact: an artefact that holds no ONNX graph.
        NotWritten: no space, or no permission.
    """
    weights = twin_of(artefact)
    choices = {
        matrix.name: Choice(lowering=Dense.of(matrix, weights.of(matrix)), reason="dense twin")
        for matrix in weights.encoder.matrices()
    }
    write_graphs(folder, {MODEL_FILE: ClassifierGraph(weights, choices)})
    return folder / MODEL_FILE


def twin_of(artefact: Artefact) -> ClassifierWeights:
    """Random weights of the artefact's sizes.

    Raises:
        BadArtefact: an artefact that holds no ONNX graph.
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
    """The shapes of the embedding tables, under the names they have in a checkpoint."""
    if artefact.manifest.format != "onnx":
        raise BadArtefact(
            "only an ONNX artefact has a dense twin",
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
    """Small numbers everywhere, and layer norms that leave things as they are.

    No two matrices share their numbers: they would share their place in memory too, and so in the
    cache, which no trained model's do.
    """
    draw = np.random.default_rng(0)
    tensors: dict[str, Array] = {}
    for name, shape in shapes.items():
        if name.endswith(("LayerNorm.weight", "layer_norm.weight")):
            tensors[name] = np.ones(shape, np.float32)
        else:
            tensors[name] = _SCALE * (2 * draw.random(shape, np.float32) - 1)
    return tensors
