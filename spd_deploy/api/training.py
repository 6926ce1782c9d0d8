"""``spd.train``: a classifier and its data in, a sparse classifier out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from spd_deploy.api.command_options import as_options, no_usage_errors, options_given
from spd_deploy.api.display import (
    CheckpointResult,
    ResultTable,
    ResultView,
    facts_of,
    score,
    scores_table,
)
from spd_deploy.api.notes import NoteRecorder
from spd_deploy.domain.extras import needs_extras
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtime_choice import CpuRuntime

if TYPE_CHECKING:
    from spd_deploy.domain.checkpoint import Checkpoint
    from spd_train.family_result import Family
    from spd_train.seeds import SeedResults, SeedSummary


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class TrainResult(CheckpointResult):
    """The result of a training; ``export``, ``load`` and ``evaluate`` take it as a path.

    Attributes:
        checkpoint: the trained model; of several seeds the first one's, of a family the fastest
            within ``max_drop``.
        seeds: the checkpoint of each seed with mean and interval, where several were trained.
        family: the students with their measured speeds, where a speed-up was wanted.
        notes: messages of the run, with the warnings about the data.
    """

    seeds: "SeedResults | None" = None
    family: "Family | None" = None

    def to_json(self) -> dict[str, Any]:
        """What ``spd train --json`` prints."""
        if self.seeds is not None:
            return self.seeds.to_json()
        if self.family is not None:
            return self.family.to_json()
        return {"checkpoint": str(self.path), **self.checkpoint.to_json()}

    def view(self) -> ResultView:
        """Pattern, density, folder and scores; of several seeds the means, of a family each."""
        tables = (scores_table(self.checkpoint),) if self.seeds is None else (_means(self.seeds),)
        if self.family is not None:
            tables = (_members(self.family),)
        return ResultView(
            title=f"trained {self.checkpoint.task.name}",
            facts=facts_of(self.checkpoint),
            tables=tables,
        )


@needs_extras("train", "train")
def train(
    *,
    output: str | PathLike[str],
    task: str | None = None,
    data: str | PathLike[str] | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str = "label",
    regression: bool = False,
    multi_label: bool = False,
    label_separator: str | None = None,
    ordinal: bool = False,
    label_order: str | Sequence[str] | None = None,
    skip_broken_rows: bool = False,
    class_weights: str | PathLike[str] | None = None,
    focal_gamma: float | None = None,
    metric: str | None = None,
    model: str | PathLike[str] | None = None,
    revision: str | None = None,
    teacher: str | PathLike[str] | None = None,
    keep_masks: bool = False,
    pattern: str | None = None,
    sparsity: float | None = None,
    resume: bool = False,
    speedup: float | Sequence[float] | None = None,
    max_drop: float | None = None,
    compare_layers: int | Sequence[int] | None = None,
    at: str | Sequence[str] | None = None,
    runtime: CpuRuntime | None = None,
    export_precision: Literal["fp32", "int8", "bf16"] | None = None,
    latency_table: str | PathLike[str] | None = None,
    any_machine: bool = False,
    more_texts: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    recipe: str | PathLike[str] = "spd",
    epochs: float | None = None,
    max_steps: int | None = None,
    prune_epochs: float | None = None,
    graft_epochs: float | None = None,
    finetune_epochs: float | None = None,
    int8_epochs: float | None = None,
    learning_rate: float | None = None,
    dropout: bool | None = None,
    mix_pairs: float | None = None,
    graft_schedule: Literal["none", "constant", "linear", "paper"] | None = None,
    graft_start: float | None = None,
    graft_unit: Literal["layer", "sublayer"] | None = None,
    attention_weight: float | None = None,
    hidden_weight: float | None = None,
    logits_weight: float | None = None,
    label_weight: float | None = None,
    temperature: float | None = None,
    importance: Literal["magnitude", "movement", "taylor", "activation", "second-order"]
    | None = None,
    mask_updates: int | None = None,
    regrow: bool | None = None,
    reconstruct: bool | None = None,
    permute: bool | None = None,
    allocation: Literal["uniform", "global", "sensitivity"] | None = None,
    min_density: float | None = None,
    exclude: Sequence[str] = (),
    keep_layers: int | None = None,
    calibration_tokens: int | None = None,
    teacher_epochs: float | None = None,
    teacher_learning_rate: float | None = None,
    batch_size: int | None = None,
    accumulate: int | None = None,
    max_tokens: int | None = None,
    holdout: float | None = None,
    long_texts: Literal["cut", "windows"] | None = None,
    window_stride: int | None = None,
    window_pooling: Literal["mean", "max"] | None = None,
    max_windows: int | None = None,
    seed: int | None = None,
    seeds: int | None = None,
    precision: Literal["auto", "fp32", "bf16"] | None = None,
    device: Literal["cpu", "cuda"] | None = None,
    threads: int | None = None,
    track: str | Sequence[str] = (),
    compile: bool | None = None,
    calibrate: bool | None = None,
    progress: bool | Progress = False,
) -> TrainResult:
    """Fine-tune a dense teacher and distil a sparse student from it.

    Each parameter is the option of ``spd train`` with the same name. None leaves a setting to the
    recipe, or to the run that is resumed.

    Args:
        output: the folder to write.
        task: a GLUE or built-in task, or a name for your own data.
        data: a folder with the task's files in GLUE's layout, or one file of your own (.csv, .tsv,
            .jsonl, .parquet).
        text_column: the column of your own data with the text.
        pair_column: the column with the second text, if rows are pairs.
        label_column: the column with the label.
        regression: read the labels as numbers to predict.
        multi_label: a row may have several labels, or none.
        label_separator: what stands between the labels of a text; by default it is found.
        ordinal: the labels have an order: the model answers a number, which is rounded to a label.
        label_order: the labels from the lowest to the highest; numbers need none.
        skip_broken_rows: leave broken rows out instead of stopping at the first.
        class_weights: ``balanced``, weights such as ``spam=5,ham=1``, or a JSON file with them.
        focal_gamma: exponent of the focal loss; by default the loss is the plain one.
        metric: chooses the best checkpoint, such as ``macro_f1``.
        model: the pretrained encoder: a folder, a name on the Hugging Face hub, or an address.
        revision: branch, tag or commit of ``model`` on the hub.
        teacher: a fine-tuned classifier to distil from, instead of making one.
        keep_masks: keep the zeros of a sparse ``model`` while it is fine-tuned on the labels.
        pattern: which weights may become zero, such as ``structured``, ``block:64x1`` or ``2:4``.
            Without one the dense model alone is trained.
        sparsity: the share of zeros, between 0 and 1; by default 0.9 for ``unstructured``, 0.75
            for blocks, 0.5 for ``structured``.
        resume: go on with the run in ``output``, which knows its other settings.
        speedup: how many times as fast as dense the student has to be, instead of ``sparsity``.
            Several rising numbers train a student for each.
        max_drop: points of 100 that the student may lose on the validation rows; the fastest of a
            family that loses less is the result.
        compare_layers: numbers of layers; for each a shallower dense student is trained beside.
        at: the shapes at which the speed-up counts, such as ``8x128`` (rows x tokens).
        runtime: the runtime in which it counts.
        export_precision: the precision in which it counts.
        latency_table: the times of this machine, a file that ``spd map --structured`` wrote.
        any_machine: take the times of another machine in ``latency_table``.
        more_texts: files of unlabelled texts for the student, which the teacher labels.
        recipe: ``spd``, ``spd-paper``, ``prune``, ``prune-kd``, ``one-shot``, or the ``spd.json``
            of an earlier run.
        epochs: the length of all the student's stages together, which keep their proportions.
        max_steps: a bound on the student's steps.
        prune_epochs: the length of the stage in which the sparsity rises.
        graft_epochs: the length of the stage in which the grafting probability rises to 1.
        finetune_epochs: the length of the last stage, in which all student parts are in place.
        int8_epochs: the length of quantisation-aware training at the end of that stage.
        learning_rate: the student's peak learning rate.
        dropout: whether the student is trained with dropout.
        mix_pairs: the share of a batch's pairs that get the second text of another row.
        graft_schedule: how the grafting probability changes over the training.
        graft_start: the grafting probability at the first step, between 0 and 1.
        graft_unit: graft whole layers, or attention and feed-forward parts separately.
        attention_weight: the weight of the loss between attention probabilities.
        hidden_weight: the weight of the loss between hidden states.
        logits_weight: the weight of the loss between the logits of student and teacher.
        label_weight: the weight of the loss to the true labels.
        temperature: the temperature of the loss between logits.
        importance: what the weights are ranked by.
        mask_updates: how often the masks tighten in the prune stage.
        regrow: whether a pruned weight may come back at a later update.
        reconstruct: whether kept weights are solved again by least squares after each update.
        permute: whether rows and inputs are first reordered so that the pattern keeps more.
        allocation: how the sparsity is spread over the matrices.
        min_density: the density that every matrix keeps under an uneven allocation.
        exclude: matrices whose name contains one of these stay dense.
        keep_layers: keep so many whole layers and nothing of the others: a shallower dense student.
        calibration_tokens: how many tokens of training text statistics are made on.
        teacher_epochs: the length of the teacher's fine-tuning.
        teacher_learning_rate: the teacher's peak learning rate.
        batch_size: rows of a step, over all processes.
        accumulate: parts that a step is computed in, to save memory.
        max_tokens: tokens that the model reads of a text or pair; longer ones are cut, or read in
            windows.
        holdout: the share of train that becomes validation rows, to choose the best checkpoint on.
        long_texts: ``windows`` reads a text that is longer in windows, and trains on their pooled
            logits; ``cut`` leaves out its end. By default as ``teacher`` was trained; else ``cut``.
        window_stride: tokens that a window shares with the one before; by default a quarter of
            ``max_tokens``.
        window_pooling: ``mean`` (default) or ``max`` of the logits.
        max_windows: windows of a text, by default 16; what is behind them is cut off.
        seed: the seed of the classifier's head, the batches, dropout and grafting.
        seeds: train so many times; the result then holds mean and interval of the scores.
        precision: ``fp32``, ``bf16``, or ``auto`` for bf16 where the machine is fast in it.
        device: ``cpu`` or ``cuda``.
        threads: threads to compute with on the CPU; by default the cores that are free.
        track: experiment trackers for losses and scores, such as ``tensorboard`` or ``mlflow``.
        compile: whether the layers are compiled with ``torch.compile``.
        calibrate: whether scores are calibrated on the validation rows (temperature scaling).
        progress: show bars and notes on standard error, or tell a listener of your own.

    Returns:
        The checkpoint with its scores.

    Raises:
        BadInput: whatever of the data, the model or the settings is wrong.
        Interrupted: Ctrl-C was pressed once; the state is saved and ``resume=True`` goes on.
        Diverged: the loss is not a number any more.
    """
    values = {name: value for name, value in locals().items() if name != "progress"}
    from spd_deploy.cli.train import train as command
    from spd_deploy.cli.train import trained

    options = as_options(command, values)
    recorder = NoteRecorder(progress, watch=True)
    with no_usage_errors(command), own_threads():
        found = trained(options, options_given(command, values), recorder)
    return _result_of(found, recorder.notes)


def _result_of(found: "Checkpoint | SeedResults | Family", notes: tuple[str, ...]) -> TrainResult:
    """The result of a training with one seed or several, or of a family."""
    from spd_train.family_result import Family
    from spd_train.seeds import SeedResults

    if isinstance(found, Family):
        member = found.chosen or found.members[0]
        return TrainResult(checkpoint=member.checkpoint, family=found, notes=notes)

    if isinstance(found, SeedResults):
        first = next(iter(found.runs.values()))
        return TrainResult(checkpoint=first, seeds=found, notes=notes)
    return TrainResult(checkpoint=found, notes=notes)


@contextmanager
def own_threads() -> Iterator[None]:
    """Give PyTorch back the number of threads that the caller's process had."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _members(family: "Family") -> ResultTable:
    """The score and the measured speed of each model that was compared, or of each student."""
    first = family.members[0].checkpoint
    metrics = list(first.scores["sparse"])
    comparison = family.comparison
    if comparison is None:
        students = [
            (f"{m.speedup:g}x", *(score(m.checkpoint.scores["sparse"].get(n)) for n in metrics))
            for m in family.members
        ]
        dense = ("dense", *(score(first.scores["dense"].get(name)) for name in metrics))
        title = f"scores on {first.split}"
        return ResultTable(title=title, columns=("model", *metrics), rows=[dense, *students])
    rows = [
        (
            model.title,
            f"{1e3 * model.seconds:.1f}",
            f"{comparison.speed_up(model).ratio:.2f}",
            *(score(model.scores.get(name)) for name in metrics),
        )
        for model in comparison.models
    ]
    return ResultTable(
        title=f"scores on {first.split}, and measured times: {comparison.where}",
        columns=("model", "ms", "speed-up", *metrics),
        rows=rows,
    )


def _means(seeds: "SeedResults") -> ResultTable:
    """The mean of each metric over the seeds, and its interval."""
    first = next(iter(seeds.runs.values()))
    rows = [
        (owner, metric, *_mean_and_half_width(found))
        for owner, metrics in seeds.summaries().items()
        for metric, found in metrics.items()
    ]
    return ResultTable(
        title=f"scores of {len(seeds.runs)} seeds on {first.split}",
        columns=("model", "metric", "mean", "+-"),
        rows=rows,
    )


def _mean_and_half_width(found: "SeedSummary | None") -> tuple[str, str]:
    """The cells of one metric; ``-`` where no seed has a value."""
    if found is None:
        return score(None), score(None)
    return score(found.mean), score(found.half_width)
