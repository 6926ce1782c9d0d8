"""Writes the page of the command line from the commands themselves, as ``--help`` shows them.

An MkDocs hook: the line ``<!-- commands -->`` of a page becomes a section for each command.
"""

import inspect
from collections.abc import Iterable, Iterator

import click

from spd_deploy.cli.main import cli

_MARK = "<!-- commands -->"
Records = dict[str, list[tuple[str, str]]]


class Recorder(click.HelpFormatter):
    """Keeps the options under their headings instead of printing them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: Records = {}
        self._heading = ""

    def write_heading(self, heading: str) -> None:
        """Remember under which heading the next options stand."""
        self._heading = heading

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        """Keep the options with their help."""
        self.records.setdefault(self._heading, []).extend(rows)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put the commands where a page has the mark."""
    if _MARK not in markdown:
        return markdown
    assert isinstance(cli, click.Group)  # noqa: S101 - told to the type checker
    return markdown.replace(
        _MARK, "\n".join(line for name in sorted(cli.commands) for line in _command(name))
    )


def _command(name: str) -> Iterator[str]:
    """The section of one command."""
    assert isinstance(cli, click.Group)  # noqa: S101 - told to the type checker
    command = cli.commands[name]
    context = click.Context(command, info_name=f"spd {name}")
    yield f"## spd {name}\n"
    yield from _text(command.help)
    yield f"```text\nspd {name} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    recorder = Recorder()
    command.format_options(context, recorder)
    for heading, records in recorder.records.items():
        yield f"| {heading} | |\n|---|---|"
        yield from (_row(names, told) for names, told in records)
        yield ""
    yield from _text(command.epilog)


def _text(text: str | None) -> Iterator[str]:
    """Paragraphs of help; what click is told to leave as it is becomes a block."""
    for part in inspect.cleandoc(text or "").split("\n\n"):
        lines = part.splitlines()
        if not lines:
            continue
        if lines[0] != "\b":
            yield f"{' '.join(lines)}\n"
            continue
        title = lines[1] if lines[1].endswith(":") else "Example:"
        rest = "\n".join(lines[2:] if lines[1].endswith(":") else lines[1:])
        yield f"{title}\n\n```text\n{inspect.cleandoc(chr(10) + rest)}\n```\n"


def _row(names: str, told: str) -> str:
    """A row of the table; the values of a choice stand before its help, where they can wrap."""
    names, _, choices = names.partition(" [")
    values = ", ".join(f"`{value}`" for value in choices.rstrip("]").split("|") if value)
    return f"| `{names}` | {f'One of {values}. ' if values else ''}{_cell(told)} |"


def _cell(text: str) -> str:
    """Text that a cell of a table can hold."""
    return text.replace("|", "&#124;").replace("*", "&#42;").replace("<", "&lt;")
