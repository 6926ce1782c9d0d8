"""``spd serve``: answer requests over HTTP."""

import ipaddress
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from serve.settings import ServeSettings
from spd_deploy.cli.options import device_option, runtime_option
from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES

if TYPE_CHECKING:
    from spd_deploy.sessions.protocol import Device

_DEFAULTS = ServeSettings()
_LOG_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_LOG_TIME = "%Y-%m-%dT%H:%M:%S%z"


@click.command()
@click.argument("artefact", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--insecure", is_flag=True, help="Allow a --host that other machines reach; nobody is asked."
)
@runtime_option
@device_option
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Threads of the runtime.  [default: the cores this process may use]",
)
@click.option(
    "--max-batch-tokens",
    type=click.IntRange(1),
    default=_DEFAULTS.max_batch_tokens,
    show_default=True,
    help="Tokens run at once, padding included.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(1),
    default=_DEFAULTS.max_queue_items,
    show_default=True,
    help="Texts in the house before new ones get 429.",
)
@click.option(
    "--max-body-bytes",
    type=click.IntRange(1),
    default=_DEFAULTS.max_body_bytes,
    show_default=True,
    help="Longest request body.",
)
@click.option(
    "--stall-timeout",
    type=click.FloatRange(0, min_open=True),
    default=_DEFAULTS.stall_timeout_s,
    show_default=True,
    help="Seconds after which a batch counts as hung and /livez says 503.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0, min_open=True),
    default=_DEFAULTS.drain_timeout_s,
    show_default=True,
    help="Seconds that requests may take to finish after SIGTERM.",
)
@click.option(
    "--root-path",
    default="",
    metavar="PREFIX",
    help="Path under which a proxy offers this server, such as /models/sst2.",
)
@click.option(
    "--forwarded-allow-ips",
    default="",
    metavar="ADDRESSES",
    help="Proxies whose X-Forwarded-Proto, -Host and -Prefix are believed: addresses or networks "
    "with commas between, * for all. Without it nobody's are.",
)
def serve(
    artefact: Path,
    host: str,
    port: int,
    insecure: bool,
    runtime: str,
    device: "Device | None",
    threads: int | None,
    max_batch_tokens: int,
    max_queue: int,
    max_body_bytes: int,
    stall_timeout: float,
    drain_timeout: float,
    root_path: str,
    forwarded_allow_ips: str,
) -> None:
    """Serve ARTEFACT over HTTP, with a demo page at / and the API's description at /docs.

    The artefact is verified, self-tested and warmed up before the server says it is ready. A model
    folder that was not exported is served too, in PyTorch.

    \b
    Example:
      spd serve artefacts/sst2
      curl http://127.0.0.1:8000/v1/classify -H 'Content-Type: application/json' \\
        -d '{"inputs": [{"text": "a film that is never dull"}]}'
    """  # noqa: D301  # click reads the \b as a character
    if not (insecure or is_loopback(host)):
        raise click.UsageError(
            f"--host {host} lets other machines in and this server asks nobody who they are; "
            "put a proxy that does before it, or add --insecure"
        )
    from serve.app import create_app
    from serve.forwarding import Forwarding, trusted_from
    from serve.open_model import Served, open_served
    from serve.server import bound_socket, run
    from serve.state import ServerState

    settings = ServeSettings(
        max_batch_tokens=max_batch_tokens,
        max_queue_items=max_queue,
        max_body_bytes=max_body_bytes,
        stall_timeout_s=stall_timeout,
        drain_timeout_s=drain_timeout,
    )
    logging.basicConfig(format=_LOG_LINE, datefmt=_LOG_TIME)
    life = ServerState()

    def opened() -> Served:
        """The model; what its operator should know of it is told."""
        served = open_served(
            artefact, asked=RUNTIME_CHOICES[runtime], device=device, threads=threads
        )
        if served.about.warning is not None:
            _say(served.about.warning)
        return served

    app = create_app(
        opened,
        settings,
        life=life,
        forwarding=Forwarding(
            root_path=root_path.rstrip("/"), trusted=trusted_from(forwarded_allow_ips)
        ),
    )
    with bound_socket(host, port) as listening:
        run(app, life, listening, drain_timeout_s=drain_timeout, say=_say)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address; a name other than ``localhost`` may not."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _say(line: str) -> None:
    """Tell whoever watches; standard output stays empty."""
    click.echo(line, err=True)
