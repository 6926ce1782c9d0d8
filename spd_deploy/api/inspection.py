"""``spd.inspect``: how sparse each matrix is, how it is run, and why."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spd_deploy.api.display import Displayed, ResultTable, ResultView
from spd_deploy.api.layer_times import measure_layers, refuse_unused
from spd_deploy.api.notes import NoteRecorder
from spd_deploy.api.values import SECONDS, SIZE, THREADS, read_flag, read_model
from spd_deploy.domain.artefact import Artefact, MatrixRow, is_artefact, open_artefact
from spd_deploy.domain.checkpoint import SPD_FILE, Checkpoint, Scores, open_checkpoint
from spd_deploy.domain.decision import Decision
from spd_deploy.domain.errors import BadArtefact
from spd_deploy.domain.extras import require_extras
from spd_deploy.domain.files import bytes_of
from spd_deploy.domain.folders import refuse_no_model
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.runtime_choice import computed_in
from spd_deploy.domain.scores import score_owner
from spd_deploy.domain.shapes import spelled_gains
from spd_deploy.domain.stored_weights import weight_files
from spd_deploy.domain.temperature import TemperatureScaling

if TYPE_CHECKING:
    from spd_deploy.benchmark.layers.analysis import Analysis


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Inspection(Displayed):
    """The facts of an artefact or a checkpoint.

    Attributes:
        path: its folder.
        kind: what it is, such as ``onnx artefact, fp32, for onnxruntime``.
        matrices: shape, pattern, density, lowering and the reason for it, one a matrix.
        scores: the metrics of this model and of those it was made from, by owner.
        own: the owner of this model's own scores.
        split: what the scores were measured on.
        measured: the times of the layers, where ``measure`` asked for them.
        engine: of a trt artefact the plan of its engine, and the record of its build.
        calibration: how well the scores fit what is true, by owner.
        decision: the thresholds of labels, and the score below which the model abstains.
    """

    path: Path
    kind: str
    task: str
    pattern: str
    matrices: Sequence[MatrixRow]
    disk_bytes: int
    scores: dict[str, Scores]
    own: str
    split: str | None
    notes: Sequence[str]
    measured: "Analysis | None" = None
    engine: Mapping[str, Any] | None = None
    calibration: Mapping[str, TemperatureScaling] = field(default_factory=dict)
    decision: Decision = field(default_factory=Decision)

    @property
    def density(self) -> float:
        """Share of non-zeros over all prunable matrices."""
        return self._weighted([row.density for row in self.matrices])

    @property
    def flops_share(self) -> float:
        """Multiplications left in the prunable matrices, as a share of the dense ones."""
        return self._weighted([row.flops_share for row in self.matrices])

    def _weighted(self, shares: Sequence[float]) -> float:
        """A mean over the matrices, each counted by its size."""
        sizes = [row.shape[0] * row.shape[1] for row in self.matrices]
        return sum(s * n for s, n in zip(shares, sizes, strict=True)) / sum(sizes)

    def to_json(self) -> dict[str, Any]:
        """What ``spd inspect --json`` prints."""
        plain = asdict(replace(self, measured=None, engine=None))
        for name in ("path", "measured", "engine"):
            del plain[name]
        found = {
            **plain,
            "score": self.scores.get(self.own),
            "density": self.density,
            "flops_share": self.flops_share,
        }
        if self.measured is not None:
            from spd_deploy.benchmark.layers.layer_summary import analysis_to_json

            found["measured"] = analysis_to_json(self.measured)
        return {**found, **(self.engine or {})}

    def view(self) -> ResultView:
        """The matrices that are alike in a row each, the reasons, and the totals."""
        from spd_deploy.cli.output.console import footnotes
        from spd_deploy.cli.output.matrices_table import matrices_table

        reasons = footnotes(row.reason for row in self.matrices)
        columns, rows = matrices_table(self.matrices, reasons, every=False)
        return ResultView(
            title=f"{self.task}, {self.pattern}: {self.kind}",
            tables=(ResultTable(columns=columns, rows=rows), *self._measured_tables()),
            lines=(*(f"{mark}  {why}" for why, mark in reasons.items()), *self.summary_lines()),
        )

    def summary_lines(self) -> Iterator[str]:
        """The totals, the scores and the notes, one a line."""
        from spd_deploy.cli.output.score_lines import score_lines, trust_lines

        yield f"density {self.density:.3f} over {len(self.matrices)} matrices"
        yield f"FLOPs kept {self.flops_share:.1%} of the dense matrices'"
        yield f"size {self.disk_bytes / 1e6:.1f} MB on disk"
        yield from score_lines(self.scores, self.split, self.own)
        yield from trust_lines(self.calibration, self.own, self.decision)
        yield from self.notes

    def _measured_tables(self) -> Iterator[ResultTable]:
        """The times of the matrices, where they were measured."""
        if self.measured is None:
            return
        from spd_deploy.benchmark.layers.layer_tables import matrix_table
        from spd_deploy.cli.output.console import footnotes

        marks = footnotes(matrix.facts.reason for matrix in self.measured.matrices)
        table = matrix_table(self.measured, every=False, marks=marks)
        yield ResultTable(title=table.title, columns=table.columns, rows=table.rows)


def inspect(
    path: str | PathLike[str],
    *,
    measure: bool = False,
    batch: int | None = None,
    seq: int | None = None,
    threads: int | None = None,
    seconds: float | None = None,
    progress: bool | Progress = False,
) -> Inspection:
    """Tell the pattern, density and lowering of each matrix, and the reason for the lowering.

    Args:
        path: the folder of an artefact; or of a checkpoint, for which the lowering is the one that
            ``export`` would choose.
        measure: also time the layers of an artefact beside those of a dense model of its sizes, in
            ONNX Runtime in fp32.
        batch: rows to measure with; 1 by default. This and the following need ``measure``.
        seq: tokens to measure with; by default 128, or as many as the model reads.
        threads: threads of the runtime; by default the cores that this process may use.
        seconds: time for each of the two models; 6 by default.
        progress: show bars, or tell a listener of your own.

    Raises:
        BadArtefact, BadCheckpoint: nothing there, or damaged files; or a checkpoint to measure.
        OptionConflict: a setting of the measurement without ``measure``.
    """
    from spd_deploy.cli.output.engines import engine_to_json

    folder = read_model("path", path)
    refuse_no_model(folder, wanted="either")
    if not read_flag("measure", measure):
        refuse_unused({"batch": batch, "seq": seq, "threads": threads, "seconds": seconds})
    if not is_artefact(folder):
        if measure:
            raise BadArtefact(
                f"{folder} is not an exported artefact, and only those can be measured",
                fix="export it first: spd export CHECKPOINT --format onnx --output DIR",
            )
        return of_checkpoint(open_checkpoint(folder))
    artefact = open_artefact(folder)
    analysis = None
    if measure:
        require_extras("spd inspect --measure", "bench")
        analysis = measure_layers(
            artefact,
            batch=None if batch is None else SIZE.read("batch", batch),
            seq=None if seq is None else SIZE.read("seq", seq),
            threads=None if threads is None else THREADS.read("threads", threads),
            seconds=None if seconds is None else SECONDS.read("seconds", seconds),
            progress=NoteRecorder(progress),
        )
    engine = engine_to_json(folder) if artefact.manifest.format == "trt" else None
    return replace(of_artefact(artefact), measured=analysis, engine=engine)


def of_artefact(artefact: Artefact) -> Inspection:
    """The facts in an artefact's manifest; every file was verified on opening."""
    from spd_deploy.cli.output.sizes import spelled_sizes

    manifest = artefact.manifest
    return Inspection(
        path=artefact.folder,
        kind=f"{manifest.format} artefact, {manifest.precision}, for {manifest.runtime}",
        task=manifest.task.name,
        pattern=_spelled(manifest.pattern, manifest.sparsity),
        matrices=manifest.matrices,
        disk_bytes=bytes_of(artefact.folder),
        scores=dict(manifest.scores),
        own=score_owner(
            pruned=manifest.sparsity is not None,
            precision=computed_in(manifest.precision, manifest.runtime_choice.precision),
            format_=manifest.format,
            runtime=manifest.runtime,
        ),
        split=manifest.split,
        calibration=manifest.calibration,
        decision=manifest.task.decision,
        notes=(
            spelled_sizes(artefact),
            *_measured_note(artefact),
            f"parity: {manifest.nearness}",
            f"{len(manifest.files)} files, all with the SHA-256 that the manifest names",
        ),
    )


def of_checkpoint(checkpoint: Checkpoint) -> Inspection:
    """The facts in a checkpoint's weights.

    Raises:
        Unavailable: the packages for it are not installed.
    """
    require_extras("spd inspect of a checkpoint", "torch")
    import numpy as np
    import torch

    from exporters.artefact_folder import matrix_rows
    from exporters.autotune.select import choose_lowerings
    from exporters.classifier_weights import read_weights

    weights = read_weights(checkpoint)
    pattern = checkpoint.pattern
    rows = [
        MatrixRow(**{**asdict(row), "density": np.count_nonzero(w) / w.size})
        for row in matrix_rows(checkpoint, choose_lowerings(checkpoint, weights))
        for w in (weights.weight(row.name),)
    ]
    notes = list(checkpoint.notes)
    if checkpoint.detected is not None:
        notes.append(f"the pattern was detected, not declared: {checkpoint.detected}")
    if pattern is not None:
        goals = {m: checkpoint.pattern_of(m) for m in checkpoint.encoder.matrices()}
        broken = [
            m.name
            for m, goal in goals.items()
            if goal is not None and not goal.holds(torch.from_numpy(weights.of(m)))
        ]
        dense = list(goals.values()).count(None)
        but = f" but the {dense} left dense" if dense else ""
        kept = f"holds on every matrix{but}"
        verdict = f"is broken by {', '.join(broken[:3])}" if broken else kept
        notes.append(f"the pattern {verdict}")
    return Inspection(
        path=checkpoint.folder,
        kind=_kind(checkpoint),
        task=checkpoint.task.name,
        pattern="dense" if pattern is None else _spelled(str(pattern), pattern.sparsity),
        matrices=rows,
        disk_bytes=sum(map(bytes_of, weight_files(checkpoint.folder))),
        scores=dict(checkpoint.scores),
        own=score_owner(pruned=pattern is not None),
        split=checkpoint.split,
        calibration=checkpoint.calibration,
        decision=checkpoint.task.decision,
        notes=notes,
    )


def _kind(checkpoint: Checkpoint) -> str:
    """The kind of the folder, in a word or two."""
    if checkpoint.pattern is None:
        return "dense checkpoint"
    return "checkpoint" if checkpoint.detected is None else f"checkpoint without {SPD_FILE}"


def _measured_note(artefact: Artefact) -> Iterator[str]:
    """The measured gain of the whole network, where the export was tuned."""
    measured = artefact.manifest.measured
    if measured:
        where = artefact.manifest.measured_on
        yield f"the whole network over all dense: {spelled_gains(measured)} ({where})"


def _spelled(pattern: str, sparsity: float | None) -> str:
    """A pattern with its sparsity, where that is open."""
    return pattern if sparsity is None else f"{pattern} at {sparsity:.0%}"
