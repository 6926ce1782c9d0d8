"""``spd export``: a checkpoint in, an artefact that can be served out."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spd_deploy.cli.console import TerminalProgress, show_json
from spd_deploy.cli.evaluate import agreed_task, score_parts
from spd_deploy.domain.artefact import Artefact
from spd_deploy.domain.checkpoint import Checkpoint, open_checkpoint
from spd_deploy.domain.errors import BadSetting, Unavailable
from spd_deploy.domain.files import bytes_of
from spd_deploy.domain.text import TOKENIZER_FILE, Tokenizer

if TYPE_CHECKING:
    from exporters.precisions import Trial

_NOT_YET = {
    "trt": "TensorRT engines are not built by this version",
    "torch": "torch artefacts with 2:4 and block kernels are not made by this version",
}
# Texts that int8 is calibrated on, in batches of some: enough for ranges, and seconds to run.
_CALIBRATION_ROWS, _CALIBRATION_BATCH = 512, 16


@click.command(
    epilog="""\b
Examples:
  spd export runs/mrpc-24 --format onnx --output artefacts/mrpc-24
  spd export runs/mrpc-block --precision int8 --data-dir GLUE/MRPC --output artefacts/mrpc-int8"""
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "format_",
    type=click.Choice(["onnx", "trt", "torch"]),
    default="onnx",
    show_default=True,
    help="onnx: ONNX Runtime on CPU or CUDA, OpenVINO. trt and torch: refused as yet.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="Of the matrix products. fp16 is for GPUs; int8 is calibrated and scored on the task.",
)
@click.option("--task", "task_name", help="int8: default the task the model was trained for.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="int8: the task's train and dev.")
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="int8: how much of the headline metric may be lost, in points.",
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--overwrite", is_flag=True, help="Replace the artefact that is there.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON.")
def export(
    checkpoint: Path,
    format_: str,
    precision: str,
    task_name: str | None,
    data_dir: Path | None,
    max_drop: float,
    output: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Lower a checkpoint into a graph whose zeros cost no time, verified before it is written."""
    if format_ in _NOT_YET:
        raise Unavailable(
            _NOT_YET[format_],
            got=f"--format {format_}",
            fix="use --format onnx, which runs anywhere",
        )
    if precision == "bf16":
        raise BadSetting(
            "bf16 needs no artefact of its own",
            got="--precision bf16",
            fix="export in fp32 and run it with --runtime openvino:bf16",
        )
    from exporters.onnx import artefact_from_checkpoint
    from exporters.precisions import Precision

    source, progress = open_checkpoint(checkpoint), TerminalProgress()
    if source.detected is not None:
        progress.note(f"{source.pattern} detected, not declared: {source.detected}")
    trial = trial_of(source, task_name, data_dir, max_drop) if precision == "int8" else None
    artefact = artefact_from_checkpoint(
        source,
        output,
        precision=Precision(precision),
        trial=trial,
        overwrite=overwrite,
        progress=progress,
    )
    if as_json:
        show_json({"artefact": str(output), **artefact.manifest.to_json()})
    else:
        show_result(artefact)


def trial_of(
    checkpoint: Checkpoint, task_name: str | None, data_dir: Path | None, max_drop: float
) -> "Trial":
    """Train's first texts to calibrate int8 on, and dev to judge it by.

    Raises:
        BadSetting: data of another task.
        BadData: none, broken, or without labels.
    """
    from exporters.precisions import Scores, Trial
    from spd_deploy.domain.progress import Silent
    from spd_deploy.sessions.opening import Opened
    from spd_deploy.sessions.protocol import Session
    from spd_train.data.examples import read_split

    task = agreed_task(checkpoint.task, task_name)
    tokenizer = Tokenizer(checkpoint.folder / TOKENIZER_FILE, max_tokens=checkpoint.max_tokens)
    train = [e for part in read_split(task, data_dir, "train").values() for e in part]
    rows = [tokenizer.encode(e.text, e.pair) for e in train[:_CALIBRATION_ROWS]]
    rows.sort(key=lambda row: len(row.ids))
    dev = read_split(task, data_dir, "dev")

    def score(session: Session) -> Scores:
        opened = Opened(session=session, tokenizer=tokenizer, task=task)
        return score_parts(opened, task, dev, Silent())

    return Trial(
        batches=[
            tokenizer.pad(rows[i : i + _CALIBRATION_BATCH])
            for i in range(0, len(rows), _CALIBRATION_BATCH)
        ],
        score=score,
        metric=task.metrics[0],
        max_drop=max_drop,
    )


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
