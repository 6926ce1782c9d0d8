"""``spd.distil``: a pretrained encoder and texts in, a sparse encoder for any task out."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spd_deploy.api.command_options import as_options, no_usage_errors, options_given
from spd_deploy.api.display import ResultView, SavedResult
from spd_deploy.api.notes import NoteRecorder
from spd_deploy.api.training import own_threads
from spd_deploy.domain.extras import needs_extras
from spd_deploy.domain.progress import Progress

if TYPE_CHECKING:
    from spd_train.distilled_encoder import DistilledEncoder


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class DistilResult(SavedResult):
    """A sparse encoder; it can be handed to ``train`` as ``model``, with ``keep_masks=True``.

    Attributes:
        encoder: pattern, density and how close it is to the dense encoder.
        notes: messages of the run.
    """

    encoder: "DistilledEncoder"
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The encoder's folder, which ``AutoModel`` loads."""
        return self.encoder.folder

    def to_json(self) -> dict[str, Any]:
        """What ``spd distil --json`` prints."""
        return {"encoder": str(self.path), **self.encoder.to_json()}

    def view(self) -> ResultView:
        """Pattern, density, folder, and how close it is to the dense encoder."""
        found = self.encoder
        return ResultView(
            title="distilled encoder",
            facts={
                "pattern": f"{found.pattern} at {found.pattern.sparsity:.0%}",
                "density": f"{found.density:.3f} of the encoder's weights",
                "saved": str(found.folder),
            },
            lines=(found.sentence,),
        )


@needs_extras("distil", "train")
def distil(
    *,
    output: str | PathLike[str],
    texts: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    text_column: str | None = None,
    pair_column: str | None = None,
    skip_broken_rows: bool = False,
    model: str | PathLike[str] | None = None,
    revision: str | None = None,
    pattern: str | None = None,
    sparsity: float | None = None,
    resume: bool = False,
    epochs: float | None = None,
    exclude: Sequence[str] = (),
    max_steps: int | None = None,
    learning_rate: float | None = None,
    dropout: bool | None = None,
    importance: Literal["magnitude", "movement", "taylor", "activation", "second-order"]
    | None = None,
    mask_updates: int | None = None,
    reconstruct: bool | None = None,
    calibration_tokens: int | None = None,
    batch_size: int | None = None,
    accumulate: int | None = None,
    max_tokens: int | None = None,
    holdout: float | None = None,
    seed: int | None = None,
    precision: Literal["auto", "fp32", "bf16"] | None = None,
    device: Literal["cpu", "cuda"] | None = None,
    compile: bool | None = None,
    threads: int | None = None,
    track: str | Sequence[str] = (),
    progress: bool | Progress = False,
) -> DistilResult:
    """Prune a pretrained encoder on texts without labels, once for all tasks.

    Each parameter is the option of ``spd distil`` with the same name. None leaves a setting to the
    recipe, or to the run that is resumed.

    Args:
        output: the folder to write.
        texts: one file of texts or several (.csv, .tsv, .jsonl, .parquet); labels are not read.
        text_column: the column of the text.
        pair_column: the column of the second text, if rows are pairs.
        skip_broken_rows: leave broken rows out instead of stopping at the first.
        model: the pretrained encoder: a folder, a name on the Hugging Face hub, or an address.
        revision: branch, tag or commit of ``model`` on the hub.
        pattern: which weights become zero, such as ``structured``, ``block:64x1`` or ``2:4``.
        sparsity: the share of zeros, between 0 and 1.
        resume: go on with the run in ``output``, which knows its other settings.
        epochs: the length of the run, in epochs of the texts.
        exclude: matrices whose name contains one of these stay dense.
        max_steps: a bound on the optimiser steps.
        learning_rate: the peak learning rate.
        dropout: whether the sparse encoder is trained with dropout.
        importance: what the weights are ranked by.
        mask_updates: how often the masks tighten.
        reconstruct: whether kept weights are solved again by least squares after each update.
        calibration_tokens: how many tokens of text statistics are made on.
        batch_size: rows of a step, over all processes.
        accumulate: parts that a step is computed in, to save memory.
        max_tokens: tokens that the model reads of a text or pair; longer ones are cut.
        holdout: the share of the texts that the best weights are chosen on.
        seed: the seed of the batches, dropout and grafting.
        precision: ``fp32``, ``bf16``, or ``auto`` for bf16 where the machine is fast in it.
        device: ``cpu`` or ``cuda``.
        compile: whether the layers are compiled with ``torch.compile``.
        threads: threads to compute with on the CPU; by default the cores that are free.
        track: experiment trackers for losses and scores, such as ``tensorboard`` or ``mlflow``.
        progress: show bars and notes on standard error, or tell a listener of your own.

    Returns:
        The sparse encoder, and how close it is to the dense one.

    Raises:
        BadInput: whatever of the texts, the model or the settings is wrong.
        Interrupted: Ctrl-C was pressed once; the state is saved and ``resume=True`` goes on.
        Diverged: the loss is not a number any more.
    """
    values = {name: value for name, value in locals().items() if name != "progress"}
    from spd_deploy.cli.distil import distil as command
    from spd_deploy.cli.distil import distilled

    options = as_options(command, values)
    recorder = NoteRecorder(progress, watch=True)
    with no_usage_errors(command), own_threads():
        found = distilled(options, options_given(command, values), recorder)
    return DistilResult(encoder=found, notes=recorder.notes)
