"""Every limit of the server is an option, a variable, a key of a file, and a part of ``/info``."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import click
import pytest
from click.testing import CliRunner

from serve.settings import ServeSettings, described_settings
from spd_deploy.cli.main import cli
from spd_deploy.cli.options.serve_options import flag_of, parameter_of, settings_from
from spd_deploy.cli.options.variables import unknown_variables
from tests.serve.clients import client_of
from tests.serve.fakes import FakeSession, fake_served

FIELDS = fields(ServeSettings)
Limit = Field[Any]


def serve() -> click.Command:
    assert isinstance(cli, click.Group)
    return cli.commands["serve"]


def settings_of(
    *words: str, variables: Mapping[str, str] | None = None, config: str = ""
) -> ServeSettings:
    """The limits of ``spd serve`` with these words, variables and content of a file."""
    with TemporaryDirectory() as folder, patch.dict(os.environ, variables or {}):
        file = Path(folder, "spd.toml")
        file.write_text(config, encoding="utf-8")
        given = ["--config", str(file), *words, "somewhere"]
        return settings_from(serve().make_context("serve", given).params)


def variable_of(field: Limit) -> str:
    return f"SPD_SERVE_{parameter_of(field.name).upper()}"


def others(field: Limit) -> Iterator[Any]:
    """Values that differ from the default and from each other."""
    match field.default:
        case bool():
            yield from (not field.default, field.default, not field.default)
        case int() | float():
            yield from (field.default + 1, field.default + 2, field.default + 3)
        case None if field.name == "long_texts":
            yield from ("windows", "cut", "windows")
        case None if field.name == "window_pooling":
            yield from ("max", "mean", "max")
        case None:
            yield from (1, 2, 3)
        case _:
            yield from (("a.example",), ("b.example",), ("c.example",))


def spelled(value: Any) -> str:
    """A value as a shell gives it."""
    return ",".join(value) if isinstance(value, tuple) else str(value)


def as_toml(value: Any) -> str:
    """A value as TOML spells it."""
    if isinstance(value, str):
        return f'"{value}"'
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else (
        str(list(value)) if isinstance(value, tuple) else str(value)
    )  # fmt: skip


def words_for(field: Limit, value: Any) -> Sequence[str]:
    """The option that asks for a value."""
    flag = flag_of(field.name)
    if isinstance(value, bool):
        return [flag if value else flag.replace("--", "--no-", 1)]
    return [flag, spelled(value)]


def by_name(field: Limit) -> str:
    return field.name


@pytest.mark.parametrize("field", FIELDS, ids=by_name)
def test_a_limit_stands_in_the_help(field: Limit) -> None:
    """Its option is shown with what it is, its variable and its default."""
    text = " ".join(serve().get_help(click.Context(serve(), info_name="spd serve")).split())
    _, _, line = text.partition(f" {flag_of(field.name)} ")

    described = described_settings()[field.name]
    told, _, rest = line.partition(f" [env var: {variable_of(field)}")
    assert told.removesuffix(" Default: none.").endswith(
        described[1:]
    ) and " --" not in told.removeprefix("/ --no-")
    assert "efault: " in rest[:40] or "Default: none." in told


@pytest.mark.parametrize("field", FIELDS, ids=by_name)
def test_an_option_beats_a_variable_beats_a_file_beats_the_default(field: Limit) -> None:
    """Of the four places that give a limit, the nearest to the command counts."""
    first, second, third = others(field)
    key = flag_of(field.name).removeprefix("--")
    config = f"{key} = {as_toml(first)}"
    variables = {variable_of(field): spelled(second)}
    words = words_for(field, third)

    assert getattr(settings_of(), field.name) == field.default
    assert getattr(settings_of(config=config), field.name) == first
    assert getattr(settings_of(config=config, variables=variables), field.name) == second
    assert getattr(settings_of(*words, config=config, variables=variables), field.name) == third


def test_info_shows_every_limit(tmp_path: Path) -> None:
    """What was set, and the default of what was not, is what clients read."""
    settings = settings_of("--max-inputs", "7", variables={"SPD_SERVE_MAX_QUEUE": "11"})

    with client_of(fake_served(tmp_path, FakeSession()), settings) as client:
        shown = client.get("/info").json()["limits"]

    assert set(shown) == {field.name for field in FIELDS}
    assert shown["max_inputs"] == 7 and shown["max_queue_items"] == 11
    assert shown["max_body_bytes"] == ServeSettings().max_body_bytes


def test_every_limit_is_described() -> None:
    """The class tells of each field what it is, in sentences."""
    described = described_settings()

    assert list(described) == [field.name for field in FIELDS]
    assert all(text.endswith(".") and len(text) > 15 for text in described.values())


def test_a_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    """``SPD_SERVE_CONFIG`` stands for ``--config``, for options that are no limits too."""
    file = tmp_path / "x.toml"
    file.write_text('port = 9000\nhost = "::1"\n', encoding="utf-8")
    with patch.dict(os.environ, {"SPD_SERVE_CONFIG": str(file)}):
        params = serve().make_context("serve", ["somewhere", "--host", "localhost"]).params

    assert (params["port"], params["host"]) == (9000, "localhost")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("port = 9000\nmax_body_bytes = 5", "line 2: unknown key; got max_body_bytes; did you mean "
         "max-body-bytes?"),
        ("max-body-byte = 5", "line 1: unknown key; got max-body-byte; did you mean max-body"),
        ("xyzzy = 5", "unknown key; got xyzzy; see spd serve --help"),
        ('config = "other.toml"', "unknown key; got config"),
        ("[limits]\nport = 5", "line 1: unknown key; got limits"),
        ("\n\nport = 70000", "line 3: port: 70000 is not in the range"),
        ('port = "9000"', "line 1: port must be a whole number; got '9000'"),
        ("port = true", "port must be a whole number; got True"),
        ("port = 9000.0", "port must be a whole number; got 9000.0"),
        ("stall-timeout = nan", "stall-timeout: nan is not a length of time"),
        ("stall-timeout = inf", "stall-timeout: inf is not a length of time"),
        ("insecure = 1", "insecure must be true or false; got 1"),
        ("host = ['::1']", "host must be a string; got ['::1']"),
        ('device = "tpu"', "device: 'tpu' is not one of"),
        ("port = 1979-05-27", "port must be a whole number"),
        ("port = ", "is not TOML"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path, content: str, told: str) -> None:
    """An unknown key, a wrong type or a value out of range ends it in one line."""
    file = tmp_path / "spd.toml"
    file.write_text(content, encoding="utf-8")

    result = CliRunner().invoke(cli, ["serve", "somewhere", "--config", str(file)])

    assert result.exit_code == 1
    assert result.stderr.startswith(f"spd: {file}") and result.stderr.count("\n") == 1
    assert told in result.stderr


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Its path and the reason are named."""
    result = CliRunner().invoke(cli, ["serve", "somewhere", "--config", str(tmp_path / "no.toml")])

    assert result.exit_code == 1
    assert "no.toml" in result.stderr and "No such file" in result.stderr


def test_a_misspelled_variable_is_pointed_out() -> None:
    """It would change nothing in silence; those that Kubernetes sets for a Service are passed."""
    environment = {
        "SPD_SERVE_MAX_BODDY_BYTES": "5",
        "SPD_SERVE_PORT": "80",
        "SPD_SERVE_SERVICE_HOST": "10.0.0.1",
        "SPD_SERVE_PORT_80_TCP_ADDR": "10.0.0.1",
        "PATH": "/bin",
    }

    (line,) = unknown_variables(serve(), "SPD_SERVE_", environment)

    assert line.startswith("SPD_SERVE_MAX_BODDY_BYTES is no setting")
    assert line.endswith("did you mean SPD_SERVE_MAX_BODY_BYTES?")
