"""The output of the command line: progress, tables, JSON, and one line for an error."""

import contextlib
import errno
import json
import os
import string
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table

from spd_deploy.cli.long_run.remaining_time import BusyWatch, RemainingTime
from spd_deploy.domain.errors import Interrupted, OptionConflict, SpdError
from spd_deploy.domain.extras import lacking_extra
from spd_deploy.domain.files import FULL, not_written
from spd_deploy.domain.progress import Advance
from spd_deploy.domain.spelling import spelled_duration

_LOG_EVERY_S = 10.0


class Failed(click.ClickException):
    """An error of ours at the edge of the command line: one line on standard error."""

    def __init__(self, error: SpdError) -> None:
        super().__init__(str(error))
        self.error = error

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click has a class attribute here
        """130 for a run that was stopped, as shells count it; 2 for misuse; 1 for the rest."""
        match self.error:
            case Interrupted():
                return 130
            case OptionConflict():
                return 2
            case _:
                return 1

    def show(self, file: Any = None) -> None:
        """Print the line on standard error, after the name of the program."""
        click.echo(f"spd: {self.message}", file=file, err=True)


class Group(click.Group):
    """A command group that turns our errors into one line and an exit code.

    Its help lists the commands in the order in which they were added.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order of the pipeline."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises:
            Failed: the command raised an error of ours, was interrupted, met a full disk, or lacks
                a package of an extra.
        """
        try:
            return super().invoke(ctx)
        except SpdError as err:
            raise Failed(err) from err
        except ModuleNotFoundError as err:  # on a way that no command foresees
            if (lacking := lacking_extra(err)) is None:
                raise
            raise Failed(lacking) from err
        except OSError as err:  # of a scratch or standard output, which no command writes itself
            if err.errno not in (*FULL, errno.EROFS):
                raise
            raise Failed(not_written(Path(err.filename or "an output"), err)) from err
        except KeyboardInterrupt as err:
            raise Failed(Interrupted("stopped", fix="run the command again")) from err


def speaks() -> bool:
    """Whether this process prints: of a distributed run the first one alone does."""
    return os.environ.get("RANK", "0") == "0"


class TerminalProgress:
    """Shows stages on standard error: as bars on a terminal, else as a line every ten seconds.

    Both say how long the stage will still take. With ``watch`` they also say when other processes
    keep the cores busy that it needs.
    """

    def __init__(self, *, watch: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._watch = watch

    @contextlib.contextmanager
    def stage(
        self, name: str, total: int, *, slow_steps: Collection[int] = ()
    ) -> Iterator[Advance]:
        """Show a bar, or lines, for one stage until the context ends."""
        stage = _Stage(total, slow_steps, watch=self._watch)
        drawn = self._bar(name, stage) if self._console.is_terminal else self._lines(name, stage)
        with drawn as advance:
            yield advance

    def note(self, text: str) -> None:
        """Print one line on standard error."""
        self._console.print(text, markup=False)

    @contextlib.contextmanager
    def _bar(self, name: str, stage: "_Stage") -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description:<24}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Bars(*columns, console=self._console) as bars:
            task = bars.add_task(name, total=stage.total, note="", left="")

            def advance(steps: int = 1, *, note: str | None = None) -> None:
                """Move the bar, with the time that is left and the note beside it."""
                stage.advance(steps)
                bars.update(task, advance=steps, left=", ".join(stage.outlook()))
                if note is not None:
                    bars.update(task, note=note)

            yield advance

    @contextlib.contextmanager
    def _lines(self, name: str, stage: "_Stage") -> Iterator[Advance]:
        start = last = time.perf_counter()

        def advance(steps: int = 1, *, note: str | None = None) -> None:
            """Print a line when the last one is old enough."""
            nonlocal last
            stage.advance(steps)
            now = time.perf_counter()
            if now - last >= _LOG_EVERY_S:
                last = now
                parts = [f"{now - start:.0f} s", *stage.outlook(), *([note] if note else [])]
                self.note(f"{name}: {stage.done}/{stage.total}, {', '.join(parts)}")

        yield advance
        ended = time.perf_counter() - start
        self.note(f"{name}: done, {stage.outcome}, {ended:.1f} s")


class _Stage:
    """The progress of a stage, its remaining time, and what slows it down."""

    def __init__(self, total: int, slow_steps: Collection[int], *, watch: bool) -> None:
        self.total = total
        self.done = 0
        self._remaining = RemainingTime(total, slow_steps)
        self._watch = BusyWatch() if watch else None

    def advance(self, steps: int) -> None:
        """Count ``steps`` more, and note when."""
        self.done += steps
        self._remaining.count(self.done)

    @property
    def outcome(self) -> str:
        """The steps done: ``158/158``, or ``117 of at most 158`` of a stage that ended earlier."""
        short = self.done < self.total
        return f"{self.done} of at most {self.total}" if short else f"{self.done}/{self.total}"

    def outlook(self) -> list[str]:
        """Such as ``about 3 min left`` and ``other processes keep 1.5 of 2 cores busy``."""
        left_s = self._remaining.left_s(self.done) if self.done < self.total else None
        return [
            *([] if left_s is None else [f"about {spelled_duration(left_s)} left"]),
            *([] if self._watch is None else self._watch.warnings()),
        ]


def show_json(value: Mapping[str, Any]) -> None:
    """Print a value for a program to read, on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output: the first column to the left, numbers to the right."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 160
    Console(highlight=False, markup=False, width=width).print(table)


def footnotes(texts: Iterable[str]) -> dict[str, str]:
    """A mark for each text, in the order of their first: a, b, ... z, a1, b1, ..."""
    letters = string.ascii_lowercase
    return {
        text: letters[i % 26] + (str(i // 26) if i >= 26 else "")
        for i, text in enumerate(dict.fromkeys(texts))
    }
