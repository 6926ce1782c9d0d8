"""``spd serve``: answer requests over HTTP."""

import contextlib
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
    "--model-control",
    is_flag=True,
    help="Let clients of the Open Inference Protocol unload the model and load it again. Keep it "
    "off where others reach the server: it has no authentication. Default: they may not.",
)
@click.option(
    "--insecure",
    is_flag=True,
    help="Allow a --host that other machines can reach, although the server has no "
    "authentication. Default: only addresses of this machine.",
)
@runtime_option
@device_option
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="CPU threads of the runtime. Lower it where other processes share the machine.  "
    "[default: the cores that this process may use]",
)
@click.option(
    "--max-batch-tokens",
    type=click.IntRange(1),
    default=_DEFAULTS.max_batch_tokens,
    show_default=True,
    help="Most tokens of a batch, padding included. Lower it for latency or to save memory.",
)
@click.option(
    "--max-queue",
    type=click.IntRange(1),
    default=_DEFAULTS.max_queue_items,
    show_default=True,
    help="Most texts that are queued or running; more requests get HTTP 429. Lower it to bound "
    "the time that a request waits.",
)
@click.option(
    "--max-body-bytes",
    type=click.IntRange(1),
    default=_DEFAULTS.max_body_bytes,
    show_default=True,
    help="Longest request body in bytes; a longer one gets HTTP 413. Raise it for long texts.",
)
@click.option(
    "--stall-timeout",
    type=click.FloatRange(0, min_open=True),
    default=_DEFAULTS.stall_timeout_s,
    show_default=True,
    help="Seconds after which a running batch counts as hung. Its requests fail, and /livez "
    "answers 503. Raise it for long texts on a slow machine.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0, min_open=True),
    default=_DEFAULTS.drain_timeout_s,
    show_default=True,
    help="Seconds that running requests have to finish after SIGTERM. Set it below the grace "
    "period of your container platform.",
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
@click.option(
    "--allowed-hosts",
    default="",
    metavar="NAMES",
    help="Host names that requests may name, with commas between; *.example.com has those below, "
    "* all. IP addresses are always allowed. Default: localhost, and every name with a --host that "
    "other machines can reach.",
)
def serve(
    artefact: Path,
    host: str,
    port: int,
    grpc_port: int | None,
    model_control: bool,
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
    allowed_hosts: str,
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
    from serve.allowed_hosts import allowed_hosts_from
    from serve.app import create_app
    from serve.forwarding import ProxySettings, trusted_from
    from serve.open_model import ServedModel, open_served
    from serve.server import bound_socket, run
    from serve.state import ServerState

    settings = ServeSettings(
        max_batch_tokens=max_batch_tokens,
        max_queue_items=max_queue,
        max_body_bytes=max_body_bytes,
        stall_timeout_s=stall_timeout,
        drain_timeout_s=drain_timeout,
        model_control=model_control,
    )
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
        hosts=allowed_hosts_from(allowed_hosts, host=host, is_loopback=is_loopback(host)),
        grpc_address=None if grpc_port is None else (host, grpc_port),
    )
    with bound_socket(host, port) as listening:
        run(app, state, listening, settings=settings, say=_say)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address; of names, only ``localhost`` counts."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _say(line: str) -> None:
    """Print a line to standard error, unless its disk is full; standard output stays empty."""
    with contextlib.suppress(OSError):
        click.echo(line, err=True)
