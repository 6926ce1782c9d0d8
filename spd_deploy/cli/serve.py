"""``spd serve``: answer requests over HTTP."""

import contextlib
import ipaddress
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.cli.options.access_options import access_options
from spd_deploy.cli.options.common import NameList, Share, device_option, runtime_option
from spd_deploy.cli.options.config_file import config_option
from spd_deploy.cli.options.model_options import model_options, named_paths
from spd_deploy.cli.options.sections import Sectioned
from spd_deploy.cli.options.serve_options import limit_options, settings_from
from spd_deploy.cli.options.variables import name_variables, unknown_variables
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
    "insecure": "Access",
    "root_path": "Behind a proxy",
    "request_log": "Logs and traces",
    "model_repository": "Models",
    "max_body_bytes": "Limits",
}


@click.command(cls=Sectioned, headings=_HEADINGS)
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
    "--management-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Answer probes and /metrics on this port, in plain HTTP and without API keys. Probes are "
    "on --port too, /metrics is not. Default: both are on --port.",
)
@access_options
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
    type=NameList(),
    default=(),
    metavar="NAME,..",
    help="Host names that requests may name; *.example.com has those below, * all. IP addresses "
    "are always allowed. Default: localhost, and every name with a --host that other machines can "
    "reach.",
)
@click.option(
    "--request-log",
    type=Share(),
    metavar="off|all|SHARE",
    default="off",
    show_default=True,
    help="Write a line of JSON for each request to standard output, or for a share of them, such "
    "as 0.01: id, model, protocol, status, rows, tokens, times, client; never a text.",
)
@click.option(
    "--tracing/--no-tracing",
    default=False,
    show_default=True,
    help="Send OpenTelemetry spans of requests and their stages to a collector, as the variables "
    "OTEL_* say. Needs the extra otel.",
)
@model_options
@runtime_option
@device_option
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="CPU threads of the runtime; several models share them, each with at least one of its "
    "own. Lower it where other processes share the machine.  "
    "[default: the cores that this process may use]",
)
@limit_options
def serve(
    artefact: tuple[str, ...],
    model_repository: Path | None,
    watch: bool,
    shadow: tuple[str, ...],
    host: str,
    port: int,
    grpc_port: int | None,
    management_port: int | None,
    insecure: bool,
    api_keys: Path | None,
    anonymous_access: str,
    tls_certificate: Path | None,
    tls_key: Path | None,
    cors_origins: tuple[str, ...],
    root_path: str,
    forwarded_allow_ips: str,
    request_log: float,
    tracing: bool,
    runtime: str,
    device: "Device | None",
    threads: int | None,
    allowed_hosts: tuple[str, ...],
    **limits: Any,
) -> None:
    """Serve ARTEFACT over HTTP, with a demo page at / and the API's description at /docs.

    The artefact is verified, self-tested and warmed up before /readyz answers 200. A checkpoint
    folder that is not exported is served too, in PyTorch and without sparse speed-up.

    ARTEFACT is a folder, or an address such as hf://OWNER/NAME@REVISION or s3://BUCKET/MODEL, which
    is copied once and verified. Several artefacts are served under the names of their folders, or
    as NAME=ARTEFACT. Requests that name no model get the first one.

    \b
    Example:
      spd serve artefacts/sst2
      curl http://127.0.0.1:8000/v1/classify -H 'Content-Type: application/json' \\
        -d '{"inputs": [{"text": "a film that is never dull"}]}'
      spd serve reviews=artefacts/sst2 pairs=artefacts/mrpc
    """  # noqa: D301  # click reads the \b as a character
    if not (insecure or api_keys or is_loopback(host)):
        raise click.UsageError(
            f"--host {host} can be reached by other machines, which need no key; give "
            "--api-keys, put a proxy with authentication before it, or add --insecure"
        )
    from serve.access import Access, AnonymousAccess
    from serve.allowed_hosts import allowed_hosts_from
    from serve.api_keys import KeyFile
    from serve.app import create_app
    from serve.forwarding import ProxySettings, trusted_from
    from serve.metrics import Metrics
    from serve.model_plan import RuntimeSettings, models_from
    from serve.observers import observers_of
    from serve.server import bound_socket, run
    from serve.shadow import shadow_from
    from serve.state import ServerState
    from serve.tls import tls_from

    settings = settings_from(limits)
    for line in unknown_variables(click.get_current_context().command, _VARIABLES, os.environ):
        _say(line)
    logging.basicConfig(format=_LOG_LINE, datefmt=_LOG_TIME)
    state, tls = ServerState(), tls_from(tls_certificate, tls_key)
    keys = None if api_keys is None else KeyFile(api_keys)
    if keys and not (tls or insecure or is_loopback(host)):
        _say("API keys and texts travel unencrypted; give --tls-certificate and --tls-key, or put "
             "a proxy with TLS before it and add --insecure")  # fmt: skip
    shadows = [shadow_from(spelled) for spelled in shadow]
    plan = models_from(
        named_paths(artefact, _say),
        model_repository,
        shadows,
        RuntimeSettings(choice=RUNTIME_CHOICES[runtime], device=device, threads=threads),
        settings,
        say=_say,
    )
    forwarding = ProxySettings(
        root_path=root_path.rstrip("/"), trusted=trusted_from(forwarded_allow_ips)
    )
    metrics = Metrics()
    observers = observers_of(metrics, log_share=request_log, tracing=tracing)
    with contextlib.ExitStack() as sockets:
        listening = sockets.enter_context(bound_socket(host, port))
        management = None
        if management_port is not None:
            management = sockets.enter_context(
                bound_socket(host, management_port, option="--management-port")
            )
        access = Access(
            keys=keys,
            anonymous=AnonymousAccess(anonymous_access),
            management_port=None if management is None else management.getsockname()[1],
        )
        app = create_app(
            plan.sources,
            settings,
            repository=plan.repository,
            shadows=shadows,
            watch=watch,
            state=state,
            forwarding=forwarding,
            hosts=allowed_hosts_from(allowed_hosts, host=host, is_loopback=is_loopback(host)),
            access=access,
            cors_origins=cors_origins,
            metrics=metrics,
            observers=observers,
            grpc_address=None if grpc_port is None else (host, grpc_port),
            tls=tls,
        )
        run(
            app,
            state,
            listening,
            settings=settings,
            say=_say,
            tls=tls,
            management=management,
        )


name_variables(serve, _VARIABLES)


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
