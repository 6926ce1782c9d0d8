"""``spd export``: a checkpoint in, an artefact that can be served out."""

from pathlib import Path

import click

from spd_deploy.cli.console import TerminalProgress, show_json
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.files import bytes_of

_NOT_YET = {
    "trt": "TensorRT engines are not built by this version",
    "torch": "torch artefacts with 2:4 and block kernels are not made by this version",
}


@click.command(
    epilog="""\b
Example:
  spd export runs/mrpc-24 --format onnx --output artefacts/mrpc-24"""
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_",
    type=click.Choice(["onnx", "trt", "torch"]),
    default="onnx",
    show_default=True,
    help="onnx: ONNX Runtime on CPU or CUDA. trt and torch: named for later, refused as yet.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="Only fp32 as yet.",
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--overwrite", is_flag=True, help="Replace the artefact that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def export(
    checkpoint: Path, format_: str, precision: str, output: Path, overwrite: bool, as_json: bool
) -> None:
    """Lower a checkpoint into a graph whose zeros cost no time, verified before it is written."""
    if format_ in _NOT_YET:
        raise Unavailable(
            _NOT_YET[format_],
            got=f"--format {format_}",
            fix="use --format onnx, which runs anywhere",
        )
    if precision != "fp32":
        raise Unavailable(
            "this version exports fp32 only", got=f"--precision {precision}", fix="leave it out"
        )
    from exporters.onnx import artefact_from_checkpoint
    from spd_deploy.domain.checkpoint import open_checkpoint

    source, progress = open_checkpoint(checkpoint), TerminalProgress()
    if source.detected is not None:
        progress.note(f"{source.pattern} detected, not declared: {source.detected}")
    artefact = artefact_from_checkpoint(source, output, overwrite=overwrite, progress=progress)
    if as_json:
        show_json({"artefact": str(output), **artefact.manifest.to_json()})
    else:
        show_result(artefact)


def show_result(artefact: Artefact) -> None:
    """What was written, and the next commands."""
    manifest, folder = artefact.manifest, artefact.folder
    counts: dict[str, int] = {}
    for row in manifest.matrices:
        counts[row.lowering] = counts.get(row.lowering, 0) + 1
    lowered = ", ".join(f"{n} {name}" for name, n in counts.items())
    click.echo(f"pattern   {manifest.pattern}: verified on the weights as stored")
    click.echo(f"matrices  {lowered}")
    click.echo(
        f"parity    {manifest.parity.max_difference:.1e} from the checkpoint's logits, "
        f"{manifest.parity.tolerance:.0e} allowed"
    )
    click.echo(f"saved     {folder} ({bytes_of(folder) / 1e6:.1f} MB)")
    click.echo(f"next      spd inspect {folder}")
    click.echo(f"          spd serve {folder}")
