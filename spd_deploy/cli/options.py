"""Options that several verbs share."""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from spd_deploy.domain.runtime_choice import RUNTIME_CHOICES
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.tasks import TASKS

Verb = TypeVar("Verb", bound=Callable[..., Any])

LARGEST_SIZE = 65536
RUNTIME = click.Choice(tuple(RUNTIME_CHOICES))
runtime_option = click.option(
    "--runtime",
    type=RUNTIME,
    default="auto",
    show_default=True,
    help="What runs an artefact; auto: what it was exported for.",
)
device_option = click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    help="Where the model runs.  [default: cpu; an engine of TensorRT: cuda]",
)


class Sizes(click.ParamType[tuple[int, ...]]):
    """Whole numbers from 1 to :data:`LARGEST_SIZE` with commas between them."""

    name = "n,n,.."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """The numbers."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isascii() and part.isdecimal() for part in parts):
            self.fail(f"{value!r} is not a list of whole numbers such as 1,8", param, ctx)
        for part in parts:
            digits = part.lstrip("0")
            if not digits:
                self.fail(f"{value!r} holds a size below 1", param, ctx)
            if len(digits) > len(str(LARGEST_SIZE)) or int(digits) > LARGEST_SIZE:
                self.fail(f"{value!r} holds a size above {LARGEST_SIZE}", param, ctx)
        return tuple(map(int, parts))


class Shapes(click.ParamType[tuple[Shape, ...]]):
    """Rows x tokens, with commas between them; each once."""

    name = "BxS,.."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Shape, ...]:
        """The shapes."""
        if isinstance(value, tuple):
            return value
        found = []
        for part in str(value).split(","):
            match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", part.strip(), re.ASCII)
            if match is None or max(map(int, match.groups())) > LARGEST_SIZE:
                self.fail(f"{part!r} is not rows x tokens such as 8x128", param, ctx)
            found.append(Shape(batch=int(match[1]), seq=int(match[2])))
        return tuple(dict.fromkeys(found))


def finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """The number; a range lets ``nan`` through, since it is neither above nor below an end."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a length of time", ctx=ctx, param=param)
    return value


THREADS = click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Threads of the runtime.  [default: the cores this process may use]",
)


def timing_options(*, rounds: int, seconds: float, turns: str, time: str) -> Callable[[Verb], Verb]:
    """How something is timed: threads, rounds and seconds, with their defaults and helps."""
    options = (
        THREADS,
        click.option(
            "--rounds",
            type=click.IntRange(2, 1000),
            default=rounds,
            show_default=True,
            help=turns,
        ),
        click.option(
            "--seconds",
            type=click.FloatRange(0.001, 86400),
            default=seconds,
            show_default=True,
            callback=finite,
            help=time,
        ),
    )
    return lambda verb: _with(options, verb)


def data_options(verb: Verb) -> Verb:
    """Where labelled texts come from: a task by name, or files of the user's own."""
    options = (
        click.option(
            "--task",
            "task_name",
            help=f"One of {', '.join(TASKS)}; or a name for your own data, which "
            "is called after its file otherwise.",
        ),
        click.option(
            "--data",
            "data_dir",
            type=click.Path(path_type=Path),
            help="Folder with the task's files in GLUE's layout, or with your own train and dev "
            "file, or one such file: .csv, .tsv, .jsonl or .parquet, the text ones also as .gz, "
            ".bz2, .xz or .zst. Your own .tsv may have quotes around fields, as pandas and Excel "
            "write it; in GLUE's files a quote is a plain character. Left out: the Hugging Face "
            "hub, for GLUE tasks.",
        ),
        click.option("--text-column", help="Your own data: the column with the text."),
        click.option(
            "--pair-column", help="Your own data: the column with the second text, if any."
        ),
        click.option(
            "--label-column",
            default="label",
            show_default=True,
            help="Your own data: the label.",
        ),
        click.option(
            "--regression", is_flag=True, help="Your own data: the label is a number to predict."
        ),
        click.option(
            "--skip-broken-rows",
            is_flag=True,
            help="Leave broken rows out instead of stopping at the first; they are counted.",
        ),
    )
    return _with(options, verb)


def _with(options: Sequence[Callable[[Verb], Verb]], verb: Verb) -> Verb:
    """The verb with options, in the order in which its help is to show them."""
    for option in reversed(options):
        verb = option(verb)
    return verb
