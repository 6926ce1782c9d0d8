"""An output that grows for hours: what is written of it, how far it is, and what it belongs to.

Beside ``answers.csv`` stands the folder ``answers.csv.partial`` until all rows are answered. Rows
are appended to a file in it, and ``progress.json`` says how many bytes of that file are whole
chunks. After a kill, what came behind those bytes is cut off and computed again. The output itself
appears at the end, whole.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any, Self

from spd_deploy.domain.documents import value_of
from spd_deploy.domain.errors import BadSetting, NotWritten
from spd_deploy.domain.files import (
    move_into_place,
    read_json,
    refusals_named,
    refuse_existing_file,
    write_json,
)

SCHEMA = 1
_ROWS_FILE = "rows"
_STATE_FILE = "progress.json"
_LOCK_FILE = "lock"
_RECORD_EVERY_S = 1.0
_AGAIN = "start again with --overwrite"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """The progress of a run; all counts are of whole chunks.

    Attributes:
        belongs_to: the input, the model and the options, by name.
        read: rows of the input, broken ones included.
        written: rows of the output.
        size: bytes of the rows file.
        seconds: time spent, in all runs together.
        tokens: of the written rows, as the model read them.
        truncated: written rows whose text was cut.
        windows: that the texts of the written rows were read in; 0 where long texts are cut.
        broken: what :class:`spd_train.data.broken_rows.BrokenRows` counted.
        columns: the names in the output, and the columns of the texts; empty before the first row.
        ended: whether every row is written.
    """

    belongs_to: Mapping[str, str] = field(default_factory=dict)
    read: int = 0
    written: int = 0
    size: int = 0
    seconds: float = 0.0
    tokens: int = 0
    truncated: int = 0
    windows: int = 0
    broken: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)
    ended: bool = False

    @classmethod
    def read_from(cls, file: Path) -> Self:
        """The state in a file.

        Raises:
            BadSetting: it is damaged, or of another version.
        """
        value = read_json(file, error=BadSetting, fix=_AGAIN)
        if value.pop("schema", None) != SCHEMA:
            raise BadSetting(f"{file} was written by another version of spd", fix=_AGAIN)
        return value_of(cls, value, what=file, error=BadSetting, fix=_AGAIN)


class PartialOutput:
    """The rows of a file that are written so far."""

    def __init__(self, output: Path, belongs_to: Mapping[str, str], stream: FileIO) -> None:
        self.output = output
        self.state = RunState(belongs_to=belongs_to)
        self._stream = stream
        self._recorded_s = time.perf_counter()

    @property
    def rows_file(self) -> Path:
        """The file of the rows."""
        return partial_folder(self.output) / _ROWS_FILE

    def append(self, content: bytes, state: RunState) -> None:
        """Add one chunk; ``state`` tells how far the run is with it.

        Raises:
            NotWritten: the disk is full.
        """
        with refusals_named(self.output):
            rest = memoryview(content)
            while rest:
                rest = rest[self._stream.write(rest) :]
        self.state = replace(
            state, belongs_to=self.state.belongs_to, size=self.state.size + len(content)
        )
        if time.perf_counter() - self._recorded_s >= _RECORD_EVERY_S:
            self.record()

    def record(self) -> None:
        """Bring what was appended to the disk, and then note how much it is."""
        with refusals_named(self.output):
            os.fsync(self._stream.fileno())
            value = {"schema": SCHEMA, **asdict(self.state)}
            write_json(self.rows_file.parent / _STATE_FILE, value)
        self._recorded_s = time.perf_counter()

    def finish(self, convert: Callable[[Path, Path], None] | None) -> None:
        """Put the output in its place; ``convert`` makes it of the rows file, where that is needed.

        Raises:
            NotWritten: the disk is full.
        """
        self.state = replace(self.state, ended=True)
        self.record()
        folder = self.rows_file.parent
        with refusals_named(self.output):
            draft = self.rows_file
            if convert is not None:
                draft = folder / "converted"
                convert(self.rows_file, draft)
            move_into_place(draft, self.output, aside=folder / "previous")
            shutil.rmtree(folder, ignore_errors=True)


def partial_folder(output: Path) -> Path:
    """The folder of an unfinished output."""
    return output.with_name(output.name + ".partial")


@contextlib.contextmanager
def partial_output(
    output: Path,
    belongs_to: Mapping[str, str],
    *,
    overwrite: bool,
    resume: bool,
    note: Callable[[str], None],
) -> Iterator[PartialOutput]:
    """Begin an output, or go on with one.

    If the block fails, what is written stays for ``resume``. Nothing stays without a row, or of an
    input that cannot be read again.

    Args:
        output: the file that appears at the end.
        belongs_to: the input, the model and the options, which must be the same in every run; empty
            where the input cannot be read again.
        overwrite: replace the output, and begin again where one is unfinished.
        resume: go on with an unfinished output.
        note: is told from which row on.

    Raises:
        NotWritten: the output exists, an unfinished one exists, another process writes it, or
            nothing can be written there.
        BadSetting: the unfinished output belongs to something else.
    """
    folder = partial_folder(output)
    # Before anything is looked at: the process that has the lock changes it.
    with _locked(folder, output):
        state = RunState(belongs_to=belongs_to)
        if begun := _begun(folder, output, overwrite=overwrite, resume=resume):
            _refuse_other(folder, begun.belongs_to, belongs_to)
            state = begun
        elif resume:
            note(f"{output} is not begun: starting with the first row")
        yield from _written(output, state, note)


def _begun(folder: Path, output: Path, *, overwrite: bool, resume: bool) -> RunState | None:
    """The progress of the run that is to be resumed; None where there is none.

    Raises:
        NotWritten: the output exists, or an unfinished one that is not to be resumed.
        BadSetting: its record is damaged, or of another version.
    """
    # What is begun again is not read: it may be damaged.
    begun = None
    if (resume or not overwrite) and (folder / _STATE_FILE).is_file():
        begun = RunState.read_from(folder / _STATE_FILE)
        if begun.ended and not (folder / _ROWS_FILE).exists():
            # The run ended between putting its output in place and removing the folder.
            (folder / _STATE_FILE).unlink()
            begun = None
    refuse_existing_file(output, overwrite=overwrite)
    if begun is not None and not resume:
        raise NotWritten(
            f"{folder} holds an unfinished run",
            got=f"{begun.written} rows are answered",
            fix=f"go on with --resume, or {_AGAIN}",
        )
    return begun


def _written(output: Path, state: RunState, note: Callable[[str], None]) -> Iterator[PartialOutput]:
    """The output at the end of what is recorded; at a failure it is recorded once more.

    Raises:
        BadSetting: fewer rows are there than are recorded.
    """
    rows = partial_folder(output) / _ROWS_FILE
    with contextlib.ExitStack() as opened:
        with refusals_named(output):
            if not state.written:  # the record of an earlier run would be of rows that are gone
                (rows.parent / _STATE_FILE).unlink(missing_ok=True)
            # Unbuffered: what a full disk refuses is refused once, and not again at the end.
            stream = opened.enter_context(rows.open("r+b" if state.written else "wb", 0))
            _refuse_short(rows, state)
            stream.truncate(state.size)
            stream.seek(state.size)
        partial = PartialOutput(output, state.belongs_to, stream)
        partial.state = state
        if state.written:
            note(f"going on after {state.read} rows")
        try:
            yield partial
        except BaseException:
            with contextlib.suppress(NotWritten, OSError):
                if partial.state.written and state.belongs_to:
                    partial.record()
            if not (state.belongs_to and (rows.parent / _STATE_FILE).is_file()):
                shutil.rmtree(rows.parent, ignore_errors=True)
            raise


@contextlib.contextmanager
def _locked(folder: Path, output: Path) -> Iterator[None]:
    """Keep a second process out of the folder, which is made where it is missing.

    A folder that holds nothing at the end is removed.

    Raises:
        NotWritten: another process writes the output.
    """
    with contextlib.ExitStack() as held:
        while not _holds(held, folder, output):
            pass  # the process before removed the folder that the lock was in
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if {one.name for one in folder.iterdir()} <= {_LOCK_FILE}:
                    shutil.rmtree(folder)


def _holds(held: contextlib.ExitStack, folder: Path, output: Path) -> bool:
    """Take the lock; False where its file is gone meanwhile, so that it keeps nobody out.

    Raises:
        NotWritten: another process has it.
    """
    with refusals_named(output):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = held.enter_context((folder / _LOCK_FILE).open("wb"))
        except FileNotFoundError:
            return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        raise NotWritten(
            f"another process writes {output}", fix="wait for it, or choose another --output"
        ) from err
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock.fileno()), (folder / _LOCK_FILE).stat())
    return False


def _refuse_short(rows: Path, state: RunState) -> None:
    """Refuse to go on where rows that are recorded are missing; zeros would take their place.

    Raises:
        BadSetting: with both sizes.
    """
    size = rows.stat().st_size
    if size < state.size:
        raise BadSetting(
            f"{rows} is damaged", got=f"{size} bytes, {state.size} are recorded", fix=_AGAIN
        )


def _refuse_other(folder: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to go on with rows of another input, model or option.

    Raises:
        BadSetting: with the first thing that differs.
    """
    for name in {**before, **now}:
        if before.get(name) != now.get(name):
            raise BadSetting(
                f"{folder} was begun with another {name}",
                got=f"{now.get(name)}, it was {before.get(name)}",
                fix=f"resume with the same, or {_AGAIN}",
            )
