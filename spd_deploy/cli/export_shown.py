"""What ``spd export`` says of what it wrote."""

import click

from spd_deploy.cli.console import show_json
from spd_deploy.cli.sizes import spelled_sizes
from spd_deploy.domain.artefact import Artefact, Manifest
from spd_deploy.domain.engines.record import is_built
from spd_deploy.domain.files import bytes_of
from spd_deploy.domain.measured import spelled_gains


def show_export(artefact: Artefact, *, as_json: bool) -> None:
    """What was written, for a reader or as JSON."""
    if as_json:
        show_json({"artefact": str(artefact.folder), **artefact.manifest.to_json()})
    else:
        show_result(artefact)


def spelled_ran(manifest: Manifest) -> str:
    """The times of each runtime, where they were measured."""
    if not manifest.ran:
        return ""
    each = (
        f"{one.runtime} " + ", ".join(f"{second * 1e3:.3g}" for second in one.seconds)
        for one in manifest.ran
    )
    return f": ms at {', '.join(manifest.ran_at)}: {'; '.join(each)}"


def show_result(artefact: Artefact) -> None:
    """What was written, and the next commands."""
    manifest, folder = artefact.manifest, artefact.folder
    counts: dict[str, int] = {}
    for row in manifest.matrices:
        counts[row.lowering] = counts.get(row.lowering, 0) + 1
    lowered = ", ".join(f"{n} {name}" for name, n in counts.items())
    click.echo(f"pattern   {manifest.pattern}: verified on the weights as stored")
    click.echo(f"matrices  {lowered}")
    if manifest.measured:
        click.echo(f"measured  {spelled_gains(manifest.measured)} over all dense")
    unbuilt = manifest.format == "trt" and not is_built(folder)
    later = ", once its engine is built" if unbuilt else ""
    click.echo(f"runs in   {manifest.asked}{spelled_ran(manifest)}{later}")
    click.echo(f"parity    {manifest.nearness}")
    for arm, scores in manifest.scores.items():
        if arm not in ("dense", "sparse"):
            shown = ", ".join(f"{k} {v:.4f}" for k, v in scores.items() if v is not None)
            click.echo(f"scored    {arm}: {shown} ({manifest.split})")
    click.echo(f"weights   {spelled_sizes(artefact)}")
    click.echo(f"saved     {folder} ({bytes_of(folder) / 1e6:.1f} MB)")
    click.echo(f"next      spd inspect {folder}")
    click.echo(f"          spd {'build' if unbuilt else 'serve'} {folder}")
