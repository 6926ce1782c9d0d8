"""The output of ``spd export``: a summary of the artefact, or its manifest as JSON."""

import click

from spd_deploy.cli.output.console import show_json
from spd_deploy.cli.output.sizes import spelled_sizes
from spd_deploy.domain.artefact import Artefact, Manifest
from spd_deploy.domain.files import bytes_of
from spd_deploy.domain.shapes import spelled_gains
from spd_deploy.sessions.tensorrt.engine_record import is_built


def show_export(artefact: Artefact, *, as_json: bool) -> None:
    """Print the manifest as JSON, or the summary."""
    if as_json:
        show_json({"artefact": str(artefact.folder), **artefact.manifest.to_json()})
    else:
        show_result(artefact)


def runtime_times(manifest: Manifest) -> str:
    """The milliseconds of each runtime that was timed; empty where none was."""
    if not manifest.runtime_timings:
        return ""
    each = (
        f"{one.runtime} " + ", ".join(f"{second * 1e3:.3g}" for second in one.seconds)
        for one in manifest.runtime_timings
    )
    return f": ms at {', '.join(manifest.timed_shapes)}: {'; '.join(each)}"


def show_result(artefact: Artefact) -> None:
    """Print the summary, and the commands that come next."""
    manifest, folder = artefact.manifest, artefact.folder
    counts: dict[str, int] = {}
    for row in manifest.matrices:
        counts[row.lowering] = counts.get(row.lowering, 0) + 1
    lowered = ", ".join(f"{n} {name}" for name, n in counts.items())
    click.echo(f"pattern   {manifest.pattern}: verified on the stored weights")
    click.echo(f"matrices  {lowered}")
    if manifest.measured:
        click.echo(f"measured  {spelled_gains(manifest.measured)} over all dense")
    unbuilt = manifest.format == "trt" and not is_built(folder)
    condition = ", once its engine is built" if unbuilt else ""
    click.echo(f"runs in   {manifest.runtime_choice}{runtime_times(manifest)}{condition}")
    click.echo(f"parity    {manifest.nearness}")
    for arm, scores in manifest.scores.items():
        if arm not in ("dense", "sparse"):
            shown = ", ".join(f"{k} {v:.4f}" for k, v in scores.items() if v is not None)
            click.echo(f"scored    {arm}: {shown} ({manifest.split})")
    click.echo(f"weights   {spelled_sizes(artefact)}")
    click.echo(f"saved     {folder} ({bytes_of(folder) / 1e6:.1f} MB)")
    click.echo(f"next      spd inspect {folder}")
    click.echo(f"          spd {'build' if unbuilt else 'serve'} {folder}")
