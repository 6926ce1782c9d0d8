"""Options that several commands share."""

import inspect
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from spd_deploy.api import values
from spd_deploy.api.loading import load
from spd_deploy.api.values import SIZE
from spd_deploy.domain.ray_cluster import LOCAL
from spd_deploy.domain.shapes import Shape
from spd_deploy.domain.tasks import TASKS
from spd_deploy.domain.tracker_names import TRACKERS

# A function that becomes a command: what a decorator of options takes and returns.
Command = TypeVar("Command", bound=Callable[..., Any])

LARGEST_SIZE = SIZE.high or 0


def default_of(function: Callable[..., Any], parameter: str) -> Any:
    """The default that a function of the Python API gives a parameter.

    The option of the same name takes it from here, so that both are one.
    """
    return inspect.signature(function).parameters[parameter].default


RUNTIME = click.Choice(values.RUNTIME.words)
DEVICE = click.Choice(values.DEVICE.words)
runtime_option = click.option(
    "--runtime",
    type=RUNTIME,
    default=default_of(load, "runtime"),
    show_default=True,
    help="Runtime that runs the model. auto is the one that the artefact was exported for, and "
    "torch for a checkpoint. openvino:bf16 computes an fp32 artefact in bf16, where the CPU has "
    "it. Name one to compare it with the artefact's own.",
)
skip_broken_rows_option = click.option(
    "--skip-broken-rows",
    is_flag=True,
    help="Leave rows without a text or a label out and count them, instead of stopping at the "
    "first.",
)
device_option = click.option(
    "--device",
    type=DEVICE,
    help="Processor that runs the model. cuda needs an NVIDIA GPU, and a runtime that is built for "
    "CUDA.  [default: cpu; cuda for a TensorRT engine]",
)


class Sizes(click.ParamType[tuple[int, ...]]):
    """Whole numbers from 1 to :data:`LARGEST_SIZE` with commas between them."""

    name = "n,n,.."

    @staticmethod
    def spelled(sizes: Sequence[int]) -> str:
        """The numbers as they are typed, such as ``1,8``."""
        return ",".join(map(str, sizes))

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """The numbers.

        Raises:
            click.BadParameter: something else, or a number out of range.
        """
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
        """The shapes in the order given, each once; the API gives a list of texts."""
        parts = value if isinstance(value, tuple | list) else str(value).split(",")
        found = []
        for part in map(str, parts):
            match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", part.strip(), re.ASCII)
            if match is None or max(map(int, match.groups())) > LARGEST_SIZE:
                self.fail(f"{part!r} is not rows x tokens such as 8x128", param, ctx)
            found.append(Shape(batch=int(match[1]), seq=int(match[2])))
        return tuple(dict.fromkeys(found))


class NameList(click.ParamType[tuple[str, ...]]):
    """Names with commas between them."""

    name = "name,.."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The names without the spaces around them; a configuration file gives a list."""
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(part.strip() for part in parts if part.strip())


class Share(click.ParamType[float]):
    """``off``, ``all``, or a share above 0 and up to 1."""

    name = "off|all|share"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The share; 0 for ``off``.

        Raises:
            click.BadParameter: something else, or a number out of range.
        """
        words = {"off": 0.0, "all": 1.0}
        if value in words:
            return words[value]
        try:
            share = float(value)
        except (TypeError, ValueError):
            share = math.nan
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is neither off, all, nor a share from 0 to 1", param, ctx)
        return share


def finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """The number; a range lets ``nan`` through, since it is neither above nor below an end.

    Raises:
        click.BadParameter: ``nan`` or infinity.
    """
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a length of time", ctx=ctx, param=param)
    return value


def _no_blank(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The separator.

    Raises:
        click.BadParameter: it is empty, or white space, which is no part of a label.
    """
    if value is not None and not value.strip():
        raise click.BadParameter("a separator cannot be blank", ctx=ctx, param=param)
    return value


def _different(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    """The labels.

    Raises:
        click.BadParameter: one label, or the same label twice.
    """
    if value is not None and (len(value) < 2 or len(set(value)) < len(value)):
        raise click.BadParameter("name each of two or more labels once", ctx=ctx, param=param)
    return value


def runtime_threads(goes_with: str = "") -> Callable[[Command], Command]:
    """The option ``--threads`` of a runtime; its help begins with what it goes with."""
    return click.option(
        "--threads",
        type=click.IntRange(values.THREADS.low, values.THREADS.high),
        help=f"{goes_with}CPU threads of the runtime. Set it to the cores that the model gets "
        "where it is served.  [default: the cores that this process may use; OMP_NUM_THREADS if "
        "that is fewer]",
    )


THREADS = runtime_threads()


def ray_option(does: str) -> Callable[[Command], Command]:
    """The option ``--ray``; its help begins with what it ``does``."""
    return click.option(
        "--ray",
        metavar="[ADDRESS]",
        is_flag=False,
        flag_value=LOCAL,
        help=f"{does} ADDRESS is HOST:PORT of a cluster that this machine is a node of, or auto "
        "for the one in RAY_ADDRESS or on this machine. Without ADDRESS Ray is started here, and "
        "stopped at the end. Needs the extra ray.  [default: no Ray]",
    )


def json_option(printed: str) -> Callable[[Command], Command]:
    """The flag ``--json``, which prints what ``printed`` says."""
    text = f"Print {printed} as JSON instead of text, for scripts."
    return click.option("--json", "as_json", is_flag=True, help=text)


def timing_options(
    *, rounds: int, seconds: float, turns: str, time: str
) -> Callable[[Command], Command]:
    """The options ``--threads``, ``--rounds`` and ``--seconds`` of a command that measures.

    Args:
        rounds: the default of ``--rounds``.
        seconds: the default of ``--seconds``.
        turns: the help of ``--rounds``.
        time: the help of ``--seconds``.
    """
    options = (
        runtime_threads("With --device cpu: "),
        click.option(
            "--rounds",
            type=click.IntRange(values.ROUNDS.low, values.ROUNDS.high),
            default=rounds,
            show_default=True,
            help=turns,
        ),
        click.option(
            "--seconds",
            type=click.FloatRange(values.SECONDS.low, values.SECONDS.high),
            default=seconds,
            show_default=True,
            callback=finite,
            help=time,
        ),
    )
    return lambda command: _with(options, command)


def data_options(command: Command) -> Command:
    """The options that say where labelled texts come from: a task by name, or the user's files."""
    options = (
        click.option(
            "--task",
            "task_name",
            help=f"Task to train on: {', '.join(TASKS)}. With --text-column it is a name for your "
            "own data.  [default: for your own data the name of its file; else it is needed]",
        ),
        click.option(
            "--data",
            "data_dir",
            type=click.Path(path_type=Path),
            help="Folder with the task's files in GLUE's layout, folder with your own train and "
            "dev file, or one file of your own: .csv, .tsv, .jsonl or .parquet; the text formats "
            "also compressed as .gz, .bz2, .xz or .zst. Quotes around fields of your own .tsv are "
            "read as pandas and Excel write them; in GLUE's files a quote is a plain character.  "
            "[default: the Hugging Face hub for GLUE tasks; built-in tasks need none]",
        ),
        click.option(
            "--text-column",
            metavar="NAME",
            help="Column of your own data that holds the text. Needed for data that is no GLUE "
            "task.  [default: none, for a task named by --task]",
        ),
        click.option(
            "--pair-column",
            metavar="NAME",
            help="Column of your own data that holds the second text. Name it if a row is a pair "
            "of texts.  [default: none, for single texts]",
        ),
        click.option(
            "--label-column",
            metavar="NAME",
            default="label",
            show_default=True,
            help="Column of your own data that holds the label, a list of labels, or an object "
            "with a probability for each label, such as those of a language model (soft labels).",
        ),
        click.option(
            "--regression",
            is_flag=True,
            help="Read the labels of your own data as numbers to predict, such as ratings with "
            "decimals, instead of as classes.",
        ),
        click.option(
            "--multi-label",
            is_flag=True,
            help="A row of your own data may have several labels, or none: a list in JSON Lines "
            "and Parquet, or a text such as a|b. Each label then gets a score of its own.  "
            "[default: on where the column holds lists, else off]",
        ),
        click.option(
            "--label-separator",
            metavar="TEXT",
            callback=_no_blank,
            help="What stands between the labels of a text, with --multi-label.  [default: | or ; "
            "or a comma, if the column holds one of them alone]",
        ),
        click.option(
            "--ordinal",
            is_flag=True,
            help="The labels of your own data have an order, such as 1 to 5 stars: the model "
            "answers a number, and the nearest label is given. Off by default: labels have none.",
        ),
        click.option(
            "--label-order",
            type=NameList(),
            metavar="LABEL,..",
            callback=_different,
            help="With --ordinal: the labels from the lowest to the highest, such as "
            "low,medium,high.  [default: numbers by their value; needed for words]",
        ),
        skip_broken_rows_option,
    )
    return _with(options, command)


track_option = click.option(
    "--track",
    type=click.Choice(TRACKERS),
    multiple=True,
    help="Experiment tracker that gets losses and scores during the training, through accelerate: "
    "a run for the dense teacher and one for the sparse student. May be given several times; all "
    "takes those that are installed.  [default: none; log.jsonl has the same figures]",
)
revision_option = click.option(
    "--revision",
    metavar="NAME",
    help="Branch, tag or commit of a model on the Hugging Face hub. The same as @NAME behind its "
    "name.  [default: its main branch]",
)
more_texts_option = click.option(
    "--more-texts",
    type=click.Path(path_type=Path, exists=True, allow_dash=False),
    multiple=True,
    metavar="FILE",
    help="File of unlabelled texts, or pairs, that the student is trained on beside the training "
    "rows; the teacher labels them, and labels in the file are not read. Columns are text and "
    "text_pair, or those of the task. May be given several times. Helps a small task, if the texts "
    "are like those that will be classified. An epoch of the student then has all rows.  "
    "[default: none]",
)


def _with(options: Sequence[Callable[[Command], Command]], command: Command) -> Command:
    """Decorate the command with options; its help shows them in this order."""
    for option in reversed(options):
        command = option(command)
    return command
