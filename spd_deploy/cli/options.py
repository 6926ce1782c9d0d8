"""Options that several verbs share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from spd_deploy.domain.runtimes import ASKED
from spd_deploy.domain.tasks import TASKS

Verb = TypeVar("Verb", bound=Callable[..., Any])


RUNTIME = click.Choice(tuple(ASKED))
runtime_option = click.option(
    "--runtime",
    type=RUNTIME,
    default="auto",
    show_default=True,
    help="What runs an artefact; auto: what it was exported for.",
)


def data_options(verb: Verb) -> Verb:
    """Where labelled texts come from: a task by name, or files of the user's own."""
    options = (
        click.option(
            "--task", "task_name", help=f"One of {', '.join(TASKS)}; or a name for your own data."
        ),
        click.option(
            "--data-dir",
            type=click.Path(path_type=Path),
            help="Folder with the task's files in GLUE's layout, or with your own train and dev "
            "file (.csv, .tsv, .jsonl), or one such file. Left out: the Hugging Face hub, for "
            "GLUE tasks.",
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
            "--skip-broken-rows", is_flag=True, help="Leave broken rows out instead of stopping."
        ),
    )
    for option in reversed(options):
        verb = option(verb)
    return verb
