"""How the command line shows engines: the plan before a build, and the record after it."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from spd_deploy.cli.output.console import footnotes, show_table
from spd_deploy.sessions.tensorrt.build_plan import BuildPlan, read_plan
from spd_deploy.sessions.tensorrt.engine_record import EngineRecord, Verdict, is_built, read_record

_UNKNOWN = "-"


def engine_to_json(folder: Path) -> dict[str, Any]:
    """The plan of a trt artefact, and the record of its engine where it is built."""
    engine = read_record(folder).to_json() if is_built(folder) else None
    return {"plan": read_plan(folder).to_json(), "engine": engine}


def show_engine(folder: Path) -> None:
    """Print the plan, and after a build the record, with a verdict for each matrix."""
    plan = read_plan(folder)
    click.echo()
    for line in plan_lines(plan):
        click.echo(line)
    if not is_built(folder):
        click.echo(f"not built here yet: spd build {folder}")
        return
    record = read_record(folder)
    for line in record_lines(record):
        click.echo(line)
    if record.verdicts:
        _show_verdicts(record)


def plan_lines(plan: BuildPlan) -> Iterator[str]:
    """The lines about an engine's plan."""
    yield f"planned   {plan.precision}, for {', '.join(map(str, plan.buckets))} (rows x tokens)"
    if largest := plan.largest_fp16_activation:
        yield f"          largest fp16 number on golden inputs {largest:.3g}, of 65504"
    for reason, count in Counter(matrix.reason for matrix in plan.matrices).items():
        eligible = next(matrix.eligible for matrix in plan.matrices if matrix.reason == reason)
        kernels = "may run on sparse kernels" if eligible else "run on dense kernels"
        yield f"          {count} of {len(plan.matrices)} matrices {kernels}: {reason}"


def record_lines(record: EngineRecord) -> Iterator[str]:
    """The lines about an engine: its GPU, its times, its accuracy."""
    yield f"built     for {record.host}"
    build = record.builds[record.chosen]
    times = ", ".join(
        f"{bucket} {seconds * 1e3:.3g} ms"
        for bucket, seconds in zip(record.buckets, build.seconds, strict=True)
    )
    counts = Counter(one.variant for one in record.builds)
    builds = " and ".join(f"{count} {variant}" for variant, count in counts.items())
    yield f"kept      a {record.variant} engine, the fastest of {builds} builds: {times}"
    sparse, dense = record.best("sparse"), record.best("dense")
    if sparse is not None and dense is not None:
        gains = ", ".join(
            f"{bucket} {dense_s / sparse_s:.2f}x"
            for bucket, sparse_s, dense_s in zip(
                record.buckets, sparse.seconds, dense.seconds, strict=True
            )
        )
        yield f"sparse    speed of the best sparse build over the best dense build: {gains}"
    yield f"parity    {record.parity:.1e} from the checkpoint's logits"
    yield f"engine    {record.engine_bytes / 1e6:.1f} MB; {record.precision_proof}"


def _show_verdicts(record: EngineRecord) -> None:
    """Print a row for each matrix and bucket of the best sparse build, with footnotes."""
    notes = footnotes(verdict.reason for verdict in record.verdicts)
    show_table(
        "The best sparse build, by matrix",
        ("matrix", "rows x tokens", "runs in", "2:4", "eligible", "sparse kernel",
         "time", "dense build", "note"),
        [_row(record, verdict, notes[verdict.reason]) for verdict in record.verdicts],
    )  # fmt: skip
    click.echo()
    for reason, mark in notes.items():
        click.echo(f"{mark}  {reason}")


def _row(record: EngineRecord, verdict: Verdict, mark: str) -> tuple[str, ...]:
    """The cells of one verdict."""
    return (
        verdict.matrix,
        str(record.buckets[verdict.bucket]),
        verdict.precision or "unknown",
        "yes" if verdict.two_of_four else "no",
        "yes" if verdict.eligible else "no",
        verdict.sparse_tactic,
        _microseconds(verdict.sparse_s),
        _microseconds(verdict.dense_s),
        mark,
    )


def _microseconds(seconds: float | None) -> str:
    """The time of a layer in microseconds, or a dash where it is unknown."""
    return _UNKNOWN if seconds is None else f"{seconds * 1e6:.1f} us"
