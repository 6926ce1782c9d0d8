"""``spd serve``: answer requests over HTTP."""

import ipaddress
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.cli.config_file import config_option
from spd_deploy.cli.options import device_option, runtime_option
from spd_deploy.cli.sections import Sectioned
from spd_deploy.cli.serve_options import limit_options, settings_from
from spd_deploy.cli.variables import name_variables, unknown_variables
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES

if TYPE_CHECKING:
    from spd_deploy.sessions.protocol import Device

_VARIABLES = "SPD_SERVE_"  # what the names of the environment variables begin with
_LOG_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_LOG_TIME = "%Y-%m-%dT%H:%M:%S%z"


# The first option of each section of the help.
_HEADINGS = {
    "config": "Configuration",
    "host": "Addresses",
    "root_path": "Behind a proxy",
    "runtime": "Model",
    "max_body_bytes": "Limits",
}


@click.command(cls=Sectioned, headings=_HEADINGS)
@click.argument("artefact", type=click.Path(path_type=Path))
@config_option("spd serve")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Use 0.0.0.0 with --insecure in a container or behind a proxy.",
)
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="TCP port to listen on. 0 takes a free port, which the first line of output names.",
)
@click.option(
    "--grpc-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Answer the Open Inference Protocol over gRPC too, on this port. Needs the extra grpc. "
    "Default: no gRPC.",
)
@click.option(
    "--insecure/--no-insecure",
    default=False,
    help="Allow a --host that other machines can reach, although the server has no "
    "authentication. Default: only addresses of this machine.",
)
@click.option(
    "--root-path",
    default="",
    metavar="PREFIX",
    help="Path prefix under which a proxy offers this server, such as /models/sst2. Needed where "
    "the proxy sends no X-Forwarded-Prefix. Default: none.",
)
@click.option(
    "--forwarded-allow-ips",
    default="",
    metavar="ADDRESSES",
    help="Proxies whose X-Forwarded-Proto, -Host and -Prefix headers are trusted: addresses or "
    "networks with commas between, or * for all. Set it behind a proxy that ends TLS. Default: "
    "none.",
)
@runtime_option
@device_option
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="CPU threads of the runtime. Lower it where other processes share the machine.  "
    "[default: the cores that this process may use]",
)
@limit_options
def serve(
    artefact: Path,
    host: str,
    port: int,
    grpc_port: int | None,
    insecure: bool,
    root_path: str,
    forwarded_allow_ips: str,
    runtime: str,
    device: "Device | None",
    threads: int | None,
    **limits: Any,
) -> None:
    """Serve ARTEFACT over HTTP, with a demo page at / and the API's description at /docs.

    The artefact is verified, self-tested and warmed up before /readyz answers 200. A checkpoint
    folder that is not exported is served too, in PyTorch and without sparse speed-up.

    \b
    Example:
      spd serve artefacts/sst2
      curl http://127.0.0.1:8000/v1/classify -H 'Content-Type: application/json' \\
        -d '{"inputs": [{"text": "a film that is never dull"}]}'
    """  # noqa: D301  # click reads the \b as a character
    if not (insecure or is_loopback(host)):
        raise click.UsageError(
            f"--host {host} can be reached by other machines, and this server has no "
            "authentication; put a proxy with authentication before it, or add --insecure"
        )
    from serve.app import create_app
    from serve.forwarding import ProxySettings, trusted_from
    from serve.open_model import ServedModel, open_served
    from serve.server import bound_socket, run
    from serve.state import ServerState

    settings = settings_from(limits)
    for line in unknown_variables(click.get_current_context().command, _VARIABLES, os.environ):
        _say(line)
    logging.basicConfig(format=_LOG_LINE, datefmt=_LOG_TIME)
    state = ServerState()

    def opened() -> ServedModel:
        """Open the model, and print its warning for the operator, if any."""
        served = open_served(
            artefact, runtime_choice=RUNTIME_CHOICES[runtime], device=device, threads=threads
        )
        if served.card.warning is not None:
            _say(served.card.warning)
        return served

    app = create_app(
        opened,
        settings,
        state=state,
        forwarding=ProxySettings(
            root_path=root_path.rstrip("/"), trusted=trusted_from(forwarded_allow_ips)
        ),
        grpc_address=None if grpc_port is None else (host, grpc_port),
    )
    with bound_socket(host, port) as listening:
        run(app, state, listening, drain_timeout_s=settings.drain_timeout_s, say=_say)


name_variables(serve, _VARIABLES)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address; of names, only ``localhost`` counts."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _say(line: str) -> None:
    """Print a line to standard error; standard output stays empty."""
    click.echo(line, err=True)
