"""The dense baseline of an artefact: a model of the same sizes with random dense weights.

The time of a dense product does not depend on the numbers in it. So the baseline of a sparse model
needs no trained teacher: random weights of the same shapes do, in the graph that ``spd export``
writes for a dense checkpoint. Sizes that the manifest does not hold, such as the width of the
embeddings, are read from the artefact's graph.
"""

from pathlib import Path

from exporters.classifier_weights import ClassifierWeights
from exporters.drawn_weights import drawn_weights
from exporters.lowering.choice import LoweringChoice
from exporters.lowering.dense import Dense
from exporters.onnx.classifier_graph import ClassifierGraph
from exporters.onnx.storage import write_graphs
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import read_config
from spd_deploy.domain.encoder import Encoder
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.export_shapes import architecture_of
from spd_deploy.domain.layers import Shapes
from spd_deploy.sessions.onnxruntime import MODEL_FILE


def write_dense_baseline(artefact: Artefact, folder: Path) -> Path:
    """Write the baseline for ONNX Runtime into ``folder``; returns the file of its graph.

    Raises:
        BadArtefact: the artefact has another format than onnx.
        NotWritten: no space, or no permission.
    """
    weights = dense_baseline_weights(artefact)
    write_graphs(folder, {MODEL_FILE: ClassifierGraph(weights, dense_choices(weights))})
    return folder / MODEL_FILE


def dense_choices(weights: ClassifierWeights) -> dict[str, LoweringChoice]:
    """Every matrix whole, as the export of a dense checkpoint has it."""
    return {
        matrix.name: LoweringChoice(
            lowering=Dense.of(matrix, weights.of(matrix)), reason="dense baseline"
        )
        for matrix in weights.encoder.matrices()
    }


def dense_baseline_weights(artefact: Artefact) -> ClassifierWeights:
    """Random dense weights of the artefact's sizes.

    Raises:
        BadArtefact: the artefact has another format than onnx.
    """
    encoder = artefact.encoder
    return drawn_weights(
        encoder,
        read_config(artefact.folder),
        outputs=artefact.task.outputs,
        tables=_tables(artefact, encoder),
        max_tokens=artefact.manifest.max_tokens,
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
    words = architecture_of(encoder).words
    named = {"word": words, "type": "embeddings.token_type_embeddings"}
    return {
        f"{encoder.base}.{table}.weight": dims[f"embeddings.{short}"]
        for short, table in named.items()
        if f"embeddings.{short}" in dims
    }
