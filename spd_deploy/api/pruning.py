"""``spd.prune``: a dense classifier and some texts in, a sparse one out; no labels, no training."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from spd_deploy.api.command_options import as_options, no_usage_errors
from spd_deploy.api.display import CheckpointResult, ResultView, facts_of, scores_table
from spd_deploy.api.notes import NoteRecorder
from spd_deploy.domain.extras import needs_extras
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtime_choice import CpuRuntime

if TYPE_CHECKING:
    from spd_train.prune import Agreement


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class PruneResult(CheckpointResult):
    """The result of pruning; ``export``, ``load`` and ``evaluate`` take it as a path.

    Attributes:
        checkpoint: the sparse model.
        agreement: how often it answers as the dense model does, on texts
            that it was not calibrated on.
        notes: messages of the run.
    """

    agreement: "Agreement"

    def to_json(self) -> dict[str, Any]:
        """What ``spd prune --json`` prints."""
        agreed = asdict(self.agreement)
        return {"checkpoint": str(self.path), "agreement": agreed, **self.checkpoint.to_json()}

    def view(self) -> ResultView:
        """Pattern, density, folder, scores and agreement."""
        return ResultView(
            title=f"pruned {self.checkpoint.task.name}",
            facts=facts_of(self.checkpoint),
            tables=(scores_table(self.checkpoint),) if self.checkpoint.scores else (),
            lines=(self.agreement.sentence,),
        )


@needs_extras("prune", "train")
def prune(
    model: str | PathLike[str],
    *,
    revision: str | None = None,
    output: str | PathLike[str],
    pattern: str | None = None,
    sparsity: float | None = None,
    texts: str | PathLike[str] | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    task: str | None = None,
    data: str | PathLike[str] | None = None,
    skip_broken_rows: bool = False,
    overwrite: bool = False,
    speedup: float | None = None,
    at: str | Sequence[str] | None = None,
    runtime: CpuRuntime | None = None,
    export_precision: Literal["fp32", "int8", "bf16"] | None = None,
    latency_table: str | PathLike[str] | None = None,
    any_machine: bool = False,
    importance: Literal[
        "magnitude", "movement", "taylor", "activation", "second-order"
    ] = "second-order",
    mask_updates: int = 4,
    reconstruct: bool = True,
    permute: bool = True,
    allocation: Literal["uniform", "global", "sensitivity"] = "uniform",
    min_density: float = 0.02,
    exclude: Sequence[str] = (),
    calibration_tokens: int = 16384,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int | None = None,
    progress: bool | Progress = False,
) -> PruneResult:
    """Prune a fine-tuned classifier in minutes, without labels and without training.

    Each parameter is the option of ``spd prune`` with the same name. The kept weights are solved
    again by least squares, so that each matrix gives what it gave before on the texts.

    Args:
        model: the folder of a checkpoint, or of any Hugging Face classifier; its name on the hub,
            or an address.
        revision: branch, tag or commit of ``model`` on the hub.
        output: the folder to write.
        pattern: which weights may become zero, such as ``structured``, ``block:64x1`` or ``2:4``.
        sparsity: the share of zeros, between 0 and 1.
        texts: a file of texts like those that the model will be used on.
        text_column: the column of ``texts`` with the text.
        pair_column: the column of ``texts`` with the second text, if rows are pairs.
        task: a GLUE task, where the model does not say its own.
        data: instead of ``texts``: the data that the model was trained on, as for ``train``.
        skip_broken_rows: leave broken rows out instead of stopping at the first.
        overwrite: replace what is in ``output``.
        speedup: how many times as fast as dense the model has to be, instead of ``sparsity``.
        at: the shapes at which the speed-up counts, such as ``8x128`` (rows x tokens).
        runtime: the runtime in which it counts.
        export_precision: the precision in which it counts.
        latency_table: the times of this machine, a file that ``spd map --structured`` wrote.
        any_machine: take the times of another machine in ``latency_table``.
        importance: what the weights are ranked by; ``movement`` and ``taylor`` need ``train``.
        mask_updates: in how many steps the sparsity rises.
        reconstruct: whether kept weights are solved again by least squares.
        permute: whether rows and inputs are first reordered so that the pattern keeps more.
        allocation: how the sparsity is spread over the matrices.
        min_density: the density that every matrix keeps under an uneven allocation.
        exclude: matrices whose name contains one of these stay dense.
        calibration_tokens: how many tokens of text statistics are made on.
        precision: ``fp32``, ``bf16``, or ``auto`` for bf16 where the machine is fast in it.
        device: ``cpu`` or ``cuda``.
        threads: threads to compute with on the CPU; by default the cores that are free.
        progress: show bars and notes on standard error, or tell a listener of your own.

    Raises:
        BadInput: whatever of the model, the texts or the settings is wrong; nothing is written.
    """
    values = {name: value for name, value in locals().items() if name != "progress"}
    from spd_deploy.cli.prune import prune as command
    from spd_deploy.cli.prune import pruned

    options = as_options(command, values)
    recorder = NoteRecorder(progress)
    with no_usage_errors(command):
        checkpoint, agreement = pruned(options, recorder)
    return PruneResult(checkpoint=checkpoint, agreement=agreement, notes=recorder.notes)
