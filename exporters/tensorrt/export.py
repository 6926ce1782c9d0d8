"""Checkpoint to trt artefact: the portable graph and a plan, from which any GPU builds an engine.

Nothing here needs a GPU or TensorRT. The graph is verified like any other, in ONNX Runtime on the
CPU, where the artefact can also be served until its engine is built.
"""

from pathlib import Path

from exporters.lowering.ways import Way
from exporters.onnx import artefact_from_checkpoint
from exporters.precisions import Precision, Trial
from exporters.tensorrt.plan import engine_form
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.engines.buckets import buckets_for
from spd_deploy.domain.progress import Progress


def engine_artefact_from_checkpoint(
    checkpoint: Checkpoint,
    output: Path,
    *,
    batches: tuple[int, ...],
    seqs: tuple[int, ...],
    precision: Precision = Precision.FP16,
    trial: Trial | None = None,
    lowering: Way | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Artefact:
    """Export a checkpoint for the shapes asked for, and for the longest text that it reads.

    Raises:
        SpdError: as :func:`exporters.onnx.artefact_from_checkpoint` does.
    """
    buckets = buckets_for(batches, seqs, longest=checkpoint.max_tokens)
    return artefact_from_checkpoint(
        checkpoint,
        output,
        precision=precision,
        trial=trial,
        lowering=lowering,
        overwrite=overwrite,
        progress=progress,
        form=engine_form(buckets),
    )
