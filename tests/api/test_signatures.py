"""The Python API and the command line are one: names, defaults, and what importing costs."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import click
import pytest

import spd_deploy as spd
from spd_deploy.api.command_options import defaults_of, parameter_name
from spd_deploy.cli.main import cli

# A function with the verb that it is, and the options that only a shell needs.
VERBS: dict[str, tuple[Callable[..., Any], set[str]]] = {
    "train": (spd.train, {"json"}),
    "prune": (spd.prune, {"json"}),
    "distil": (spd.distil, {"json"}),
    "export": (spd.export, {"json"}),
    "calibrate": (spd.calibrate, {"json"}),
    "evaluate": (spd.evaluate, {"json"}),
    "compare": (spd.compare, {"json"}),
    "inspect": (spd.inspect, {"json", "all"}),
    "bench": (spd.bench, {"json"}),
    "serve": (
        spd.create_app,
        {
            *("config", "host", "port", "grpc_port", "management_port", "insecure"),
            *("tls_certificate", "tls_key", "drain_timeout", "request_log", "tracing"),
            # Of the connections of `spd serve`; other ASGI servers have their own.
            *("max_connections", "max_pipelined", "max_bodies_bytes", "header_timeout"),
            *("body_timeout", "keep_alive_timeout", "write_timeout"),
        },
    ),
    "push": (spd.push, {"json"}),
    "predict": (spd.predict, {"texts", "input_format"}),
}


def test_a_model_is_loaded_with_the_options_of_predict() -> None:
    """What opens a model is called alike for texts in memory and for a file."""
    ours = inspect.signature(spd.load).parameters
    theirs = inspect.signature(spd.predict).parameters

    assert {name: one.default for name, one in ours.items()} == {
        name: theirs[name].default for name in ours
    }


def command_of(verb: str) -> click.Command:
    assert isinstance(cli, click.Group)
    return cli.commands[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_parameters_are_named_as_options(verb: str) -> None:
    """Each option has a parameter of its name, and each parameter but ``progress`` an option."""
    function, of_the_shell = VERBS[verb]

    options = {parameter_name(one) for one in command_of(verb).params}

    assert set(inspect.signature(function).parameters) - {"progress"} == options - of_the_shell


@pytest.mark.parametrize("verb", VERBS)
def test_defaults_are_those_of_the_options(verb: str) -> None:
    """A parameter without a default is a required option; the others have equal defaults."""
    function, _ = VERBS[verb]
    command = command_of(verb)
    names = {parameter_name(one): one for one in command.params}
    defaults = defaults_of(command)

    for name, parameter in inspect.signature(function).parameters.items():
        if name == "progress":
            assert parameter.default is False
        elif parameter.default is inspect.Parameter.empty:
            assert names[name].required, name
        else:
            assert parameter.default == defaults[names[name].name or ""], name


def literals_in(annotation: object) -> set[str]:
    """The strings that a type allows by name, in any of its parts."""
    if get_origin(annotation) is Literal:
        return {one for one in get_args(annotation) if isinstance(one, str)}
    return set().union(*map(literals_in, get_args(annotation)))


@pytest.mark.parametrize("verb", VERBS)
def test_types_name_the_choices_of_the_options(verb: str) -> None:
    """A parameter whose type lists its values lists those that the option takes."""
    function, _ = VERBS[verb]
    names = {parameter_name(one): one for one in command_of(verb).params}

    for name, parameter in inspect.signature(function).parameters.items():
        if listed := literals_in(parameter.annotation):
            kind = names[name].type
            assert isinstance(kind, click.Choice), name
            assert listed == set(kind.choices), name


def commands() -> dict[str, click.Command]:
    assert isinstance(cli, click.Group)
    return dict(cli.commands)


@pytest.mark.parametrize("verb", commands())
def test_every_option_explains_itself(verb: str) -> None:
    """The help of each option is in sentences, and says the default, or that there is none."""
    options = [one for one in command_of(verb).params if isinstance(one, click.Option)]

    for one in options:
        text = (one.help or "").strip()
        assert len(text) > 20 and text.endswith((".", "]")), one.name
        off_by_default = one.is_flag and not one.secondary_opts
        assert one.required or off_by_default or one.show_default or "efault: " in text, one.name


def test_importing_the_package_imports_nothing_of_weight() -> None:
    """Neither torch nor NumPy nor click is loaded until a function is asked for."""
    code = (
        "import sys, spd_deploy as spd; dir(spd);"
        "print([m for m in ('torch', 'numpy', 'click', 'rich', 'onnx') if m in sys.modules])"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"


def test_the_package_offers_what_it_names() -> None:
    """``__all__`` and ``dir`` agree, each name is there, and another one is an AttributeError."""
    assert set(spd.__all__) <= set(dir(spd))
    assert all(callable(getattr(spd, name)) for name in spd.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        getattr(spd, "trian")  # noqa: B009  # a checker would see it


def test_the_help_lists_verbs_in_the_order_of_the_pipeline() -> None:
    """Each verb has one whole line, and training comes before export before serving."""
    context = click.Context(cli, info_name="spd", terminal_width=80)

    lines = cli.get_help(context).split("Commands:\n")[1].splitlines()

    names = [line.split()[0] for line in lines]
    assert names.index("train") < names.index("export") < names.index("bench")
    assert names.index("bench") < names.index("serve")
    assert all(line.endswith(".") and "..." not in line for line in lines)
    assert set(names) == set(cli.commands)
