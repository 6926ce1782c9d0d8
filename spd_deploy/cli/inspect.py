"""``spd inspect``: how sparse each matrix is, how it is run, and why."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from spd_deploy.cli.console import footnotes, show_json, show_table
from spd_deploy.cli.engines import engine_to_json, show_engine
from spd_deploy.cli.matrices import matrices_table
from spd_deploy.cli.measuring import measure, measuring_options, show_measured
from spd_deploy.cli.scores import score_lines
from spd_deploy.cli.sizes import spelled_sizes
from spd_deploy.domain.artefact import Artefact, MatrixRow, is_artefact, open_artefact
from spd_deploy.domain.checkpoint import SPD_FILE, Checkpoint, Scores, open_checkpoint
from spd_deploy.domain.files import bytes_of
from spd_deploy.domain.folders import refuse_no_model
from spd_deploy.domain.runtime_choice import computed_in
from spd_deploy.domain.scores import own_arm
from spd_deploy.domain.shapes import spelled_gains
from spd_deploy.domain.stored_weights import weight_files


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What there is to say of a checkpoint or an artefact; ``own`` is the arm of its own scores."""

    kind: str
    task: str
    pattern: str
    matrices: Sequence[MatrixRow]
    disk_bytes: int
    scores: dict[str, Scores]
    own: str
    split: str | None
    notes: Sequence[str]

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
        """Plain JSON values."""
        return {
            **asdict(self),
            "score": self.scores.get(self.own),
            "density": self.density,
            "flops_share": self.flops_share,
        }


@click.command(
    epilog="""\b
Examples:
  spd inspect artefacts/mrpc
  spd inspect artefacts/mrpc --measure --batch 1 --seq 128
  spd inspect runs/mrpc --all
  spd inspect runs/mrpc --json"""
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--all", "every", is_flag=True, help="A row a matrix, not a row a role.")
@measuring_options
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def inspect(path: Path, as_json: bool, every: bool, **measuring: Any) -> None:
    """Show pattern, density, lowering and the reason for it, matrix by matrix.

    Matrices of the same role that are alike share a row; --all shows each in a row of its own.
    PATH is an artefact, or a checkpoint, for which the lowering is the one that spd export would
    choose. Of a trt artefact the plan of its engine is shown, and after spd build what became of
    it: which matrix got a sparse kernel, and what that gained. With --measure an artefact is run in
    turns with a dense model of its sizes, and of each matrix it is told how much faster it got, how
    much its density promises, and where the rest is lost. Both run in ONNX Runtime in fp32, which
    is what its profiler sees into, whatever the artefact is served with.
    """
    refuse_no_model(path, wanted="either")
    artefact = open_artefact(path) if is_artefact(path) else None
    analysis = measure(path, artefact, **measuring)
    found = of_checkpoint(open_checkpoint(path)) if artefact is None else of_artefact(artefact)
    if as_json:
        from spd_deploy.benchmark.layers.layer_summary import analysis_to_json

        more = {} if analysis is None else {"measured": analysis_to_json(analysis)}
        if artefact is not None and artefact.manifest.format == "trt":
            more |= engine_to_json(path)
        show_json({**found.to_json(), **more})
    elif analysis is not None:
        show_measured(f"{found.task}, {found.pattern}", analysis, every=every)
    else:
        show(found, every=every)
        if artefact is not None and artefact.manifest.format == "trt":
            show_engine(path)


def of_artefact(artefact: Artefact) -> Inspection:
    """What an artefact's manifest says; every file was verified on opening."""
    manifest = artefact.manifest
    return Inspection(
        kind=f"{manifest.format} artefact, {manifest.precision}, for {manifest.runtime}",
        task=manifest.task.name,
        pattern=_spelled(manifest.pattern, manifest.sparsity),
        matrices=manifest.matrices,
        disk_bytes=bytes_of(artefact.folder),
        scores=dict(manifest.scores),
        own=own_arm(
            pruned=manifest.sparsity is not None,
            precision=computed_in(manifest.precision, manifest.asked.precision),
            runtime=manifest.runtime,
        ),
        split=manifest.split,
        notes=(
            spelled_sizes(artefact),
            *_measured_note(artefact),
            f"parity: {manifest.nearness}",
            f"{len(manifest.files)} files, all with the SHA-256 that the manifest names",
        ),
    )


def of_checkpoint(checkpoint: Checkpoint) -> Inspection:
    """What a checkpoint's weights say."""
    import numpy as np
    import torch

    from exporters.artefact_folder import matrix_rows
    from exporters.autotune.select import choose
    from exporters.classifier_weights import read_weights

    weights = read_weights(checkpoint)
    pattern = checkpoint.pattern
    rows = [
        MatrixRow(**{**asdict(row), "density": np.count_nonzero(w) / w.size})
        for row in matrix_rows(checkpoint, choose(checkpoint, weights))
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
        said = f"is broken by {', '.join(broken[:3])}" if broken else f"holds on every matrix{but}"
        notes.append(f"the pattern {said}")
    return Inspection(
        kind=_kind(checkpoint),
        task=checkpoint.task.name,
        pattern="dense" if pattern is None else _spelled(str(pattern), pattern.sparsity),
        matrices=rows,
        disk_bytes=sum(map(bytes_of, weight_files(checkpoint.folder))),
        scores=dict(checkpoint.scores),
        own=own_arm(pruned=pattern is not None),
        split=checkpoint.split,
        notes=notes,
    )


def _kind(checkpoint: Checkpoint) -> str:
    """What it is in a word or two."""
    if checkpoint.pattern is None:
        return "dense checkpoint"
    return "checkpoint" if checkpoint.detected is None else f"checkpoint without {SPD_FILE}"


def show(found: Inspection, *, every: bool) -> None:
    """The matrices in groups that are alike, or each; the reasons as footnotes; then totals."""
    reasons = footnotes(row.reason for row in found.matrices)
    columns, rows = matrices_table(found.matrices, reasons, every=every)
    show_table(f"{found.task}, {found.pattern}: {found.kind}", columns, rows)
    click.echo()
    for reason, letter in reasons.items():
        click.echo(f"{letter}  {reason}")
    click.echo()
    click.echo(f"density {found.density:.3f} over {len(found.matrices)} matrices")
    click.echo(f"FLOPs kept {found.flops_share:.1%} of the dense matrices'")
    click.echo(f"size {found.disk_bytes / 1e6:.1f} MB on disk")
    for line in score_lines(found.scores, found.split, found.own):
        click.echo(line)
    for note in found.notes:
        click.echo(note)


def _measured_note(artefact: Artefact) -> Iterator[str]:
    """What the whole network was measured to gain, where the export was tuned."""
    measured = artefact.manifest.measured
    if measured:
        where = artefact.manifest.measured_on
        yield f"the whole network over all dense: {spelled_gains(measured)} ({where})"


def _spelled(pattern: str, sparsity: float | None) -> str:
    """A pattern with its sparsity, where that is open."""
    return pattern if sparsity is None else f"{pattern} at {sparsity:.0%}"
