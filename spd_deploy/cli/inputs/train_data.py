"""The data of ``spd train``: a task by name or the user's own columns, and more texts."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spd_deploy.api.values import read_windows
from spd_deploy.cli.inputs.text_inputs import rows_from_file
from spd_deploy.domain.checkpoint import open_checkpoint
from spd_deploy.domain.long_texts import TextWindows
from spd_deploy.domain.progress import Progress
from spd_deploy.domain.tasks import Task, task_named

if TYPE_CHECKING:
    from spd_train.config import Recipe
    from spd_train.data.examples import Note, OpenTokenizer
    from spd_train.data.splits import Data


def read_task_and_data(
    options: Mapping[str, Any], recipe: "Recipe", progress: Progress
) -> "tuple[Task, Data]":
    """The task and its data; with a report of what they look like."""
    from spd_deploy.sessions.checkpoint_tokenizer import opener_of
    from spd_train.data.splits import read_data
    from spd_train.data.summary import report_data

    reference = options["teacher"] or options["model"]
    opener = None if reference is None else opener_of(reference, max_tokens=recipe.max_tokens)
    task = choose_task(options["task_name"], options, opener, progress.note)
    data = read_data(
        task,
        options["data_dir"],
        holdout=recipe.holdout,
        skip_broken=options["skip_broken_rows"],
        note=progress.note,
        open_tokenizer=opener,
    )
    report_data(task, data, progress.note)
    more = [
        example
        for file in options["more_texts"]
        for _, example in rows_from_file(
            task,
            file,
            None,
            None,
            skip_broken=options["skip_broken_rows"],
            note=progress.note,
            open_tokenizer=opener,
        )
    ]
    if not more:
        return task, data
    progress.note(f"{len(more)} more texts for the student, which the teacher labels")
    return task, data.with_more(more)


def windows_of_training(options: Mapping[str, Any], note: "Note") -> TextWindows | None:
    """How long texts are read in training: as asked for, or as ``--teacher`` was trained.

    Raises:
        OptionConflict: an option of windows where texts are cut.
    """
    choice = read_windows(
        options["long_texts"],
        options["window_stride"],
        options["window_pooling"],
        options["max_windows"],
    )
    trained = None
    if options["teacher"] is not None:
        trained = open_checkpoint(Path(options["teacher"])).task.windows
    windows = choice.windows(trained)
    if trained is not None:
        note(f"long texts: the teacher was trained with {trained}; this run {_reads(windows)}")
    return windows


def _reads(windows: TextWindows | None) -> str:
    """How long texts are read, in words."""
    return "cuts them" if windows is None else f"reads {windows}"


def choose_task(
    name: str | None,
    options: Mapping[str, Any],
    opener: "OpenTokenizer | None" = None,
    note: "Note" = lambda _: None,
) -> Task:
    """The task named ``name``, or the task of the user's own columns.

    Raises:
        UsageError: neither a task nor a text column is given, own columns without data, or options
            that say two things of the labels.
        BadData: the labels of the user's own data make no task.
    """
    _refuse_two_kinds(options)
    if options["text_column"] is None:
        if name is None:
            raise click.UsageError("name a --task, or the --text-column of your own data")
        return task_named(name)
    if options["data_dir"] is None:
        raise click.UsageError("--text-column needs --data")
    from spd_train.data.own import own_task_from

    return own_task_from(
        options["data_dir"],
        text_column=options["text_column"],
        pair_column=options["pair_column"],
        label_column=options["label_column"],
        regression=options["regression"],
        multi_label=options["multi_label"],
        separator=options["label_separator"],
        ordinal=options["ordinal"],
        label_order=options["label_order"] or (),
        skip_broken=options["skip_broken_rows"],
        name=name,
        open_tokenizer=opener,
        note=note,
    )


def _refuse_two_kinds(options: Mapping[str, Any]) -> None:
    """Refuse options of which each says something else of the labels.

    Raises:
        UsageError: with both.
    """
    flags = {"--multi-label": "multi_label", "--ordinal": "ordinal", "--regression": "regression"}
    given = [flag for flag, name in flags.items() if options[name]]
    for option, flag in (("label_separator", "--multi-label"), ("label_order", "--ordinal")):
        if options[option] is not None and flag not in given:
            raise click.UsageError(f"--{option.replace('_', '-')} goes with {flag}")
    if len(given) > 1:
        raise click.UsageError(f"give {given[0]} or {given[1]}, not both")
    if given and given[0] != "--regression" and options["text_column"] is None:
        raise click.UsageError(
            f"{given[0]} goes with --text-column: a GLUE task has labels of its own"
        )
