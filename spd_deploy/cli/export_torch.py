"""``spd export --format torch``: what of the verb's options it takes, and the export itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint
from spd_deploy.domain.progress import Progress

if TYPE_CHECKING:
    from exporters.lowering.ways import Way
    from spd_deploy.kernels.tiles import Number


def refuse_options(given: Mapping[str, object], *, precision: str, runtime: str) -> None:
    """Refuse what a torch artefact has no use for.

    Raises:
        UsageError: such an option is given.
    """
    if precision == "int8":
        raise click.UsageError(
            "--format torch has no int8: use fp16 or bf16, or --format onnx for int8"
        )
    if runtime not in ("auto", "torch"):
        raise click.UsageError(f"--runtime {runtime} does not run a torch artefact: leave it out")
    idle = [name for name, value in given.items() if value]
    if idle:
        raise click.UsageError(
            f"{idle[0]} is not for --format torch: what its kernels are tuned by is measured and "
            "remembered where the artefact runs"
        )


def export_torch(
    source: Checkpoint,
    output: Path,
    *,
    precision: str,
    lowering: str,
    overwrite: bool,
    progress: Progress,
) -> Artefact:
    """The artefact."""
    from exporters.torch.export import torch_artefact_from_checkpoint

    return torch_artefact_from_checkpoint(
        source,
        output,
        number=cast("Number", precision),
        lowering=None if lowering == "auto" else cast("Way", lowering),
        overwrite=overwrite,
        progress=progress,
    )
