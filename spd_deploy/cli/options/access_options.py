"""Options of ``spd serve`` on who may ask what: keys, certificate, origins of web pages."""

from pathlib import Path

import click

from spd_deploy.cli.options.common import Command, NameList

_FILE = click.Path(path_type=Path, dir_okay=False)
# The names of serve.access.AnonymousAccess, whose module this one need not load.
_ANONYMOUS = ("none", "probes", "metrics")

_OPTIONS = (
    click.option(
        "--insecure/--no-insecure",
        default=False,
        help="Allow a --host that other machines can reach, although nothing asks for a key. Not "
        "needed with --api-keys. Default: only addresses of this machine.",
    ),
    click.option(
        "--api-keys",
        type=_FILE,
        metavar="FILE",
        help="File of API keys, one a line, as KEY or NAME:KEY. Requests send theirs as "
        "Authorization: Bearer KEY, or as x-api-key; others get 401. A changed file is read again. "
        "Default: no keys are asked for.",
    ),
    click.option(
        "--anonymous-access",
        type=click.Choice(_ANONYMOUS),
        default="probes",
        show_default=True,
        help="What needs no key where --api-keys is given. metrics means probes and /metrics.",
    ),
    click.option(
        "--tls-certificate",
        type=_FILE,
        metavar="FILE",
        help="Certificate with its chain, in PEM, for HTTPS and for gRPC with TLS. Needs "
        "--tls-key. Changed files are read again. Default: no TLS.",
    ),
    click.option(
        "--tls-key",
        type=_FILE,
        metavar="FILE",
        help="Unencrypted private key of --tls-certificate, in PEM. Default: no TLS.",
    ),
    click.option(
        "--cors-origins",
        type=NameList(),
        default=(),
        metavar="ORIGIN,..",
        help="Origins whose web pages may call the server from a browser, such as "
        "https://app.example.org, or * for all. Default: none.",
    ),
)


def access_options(command: Command) -> Command:
    """Give a command the options, in their order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
