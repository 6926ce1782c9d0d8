"""A request to classify a file, and the facts that an unfinished output belongs to."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from spd_deploy.domain.artefact import MANIFEST_FILE, Artefact
from spd_deploy.domain.checkpoint import CONFIG_FILE
from spd_deploy.domain.errors import OptionConflict
from spd_deploy.domain.files import sha256_of
from spd_deploy.domain.long_texts import AS_TRAINED, LongTextChoice
from spd_deploy.domain.tasks import Task
from spd_deploy.domain.text import TOKENIZER_FILE
from spd_deploy.domain.versions import PACKAGE, version_of
from spd_deploy.scale.answer_formats import AnswerFormat
from spd_deploy.scale.chunks import ChunkLimits
from spd_deploy.scale.text_rows import STANDARD, file_rows, standard_rows

if TYPE_CHECKING:
    from spd_deploy.sessions.open import OpenedModel
    from spd_train.data.rows import DataRow


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRequest:
    """A file to classify.

    Attributes:
        input: the file; :data:`STANDARD` for standard input.
        stdin_kind: the format of standard input.
        text_column: where the text is, if the user names it.
        pair_column: where the second text is, if the user names it.
        skip_broken_rows: leave rows without a text out.
        output: the file of answers; None for standard output.
        format: how answers are written.
        overwrite: replace the output, and an unfinished one.
        resume: go on with an unfinished output.
        windows: how texts are read that are longer than the model reads.
        limits: of a chunk.
    """

    input: Path
    output: Path | None
    format: AnswerFormat
    stdin_kind: str = "jsonl"
    text_column: str | None = None
    pair_column: str | None = None
    skip_broken_rows: bool = False
    overwrite: bool = False
    resume: bool = False
    windows: LongTextChoice = AS_TRAINED
    limits: ChunkLimits = field(default_factory=ChunkLimits)

    def __post_init__(self) -> None:
        """Refuse what cannot be resumed.

        Raises:
            OptionConflict: standard input, or standard output.
        """
        if self.resume and self.input == STANDARD:
            raise OptionConflict(
                "--resume needs an input that can be read again",
                got="standard input",
                fix="name a file with --input",
            )
        if self.resume and self.output is None:
            raise OptionConflict("--resume goes with --output", fix="name a file with --output")

    @property
    def resumable(self) -> bool:
        """Whether a run that was stopped can be continued."""
        return self.input != STANDARD and self.output is not None

    @property
    def name(self) -> Path:
        """The file's name for errors; that of standard input says its kind."""
        return Path(f"stdin.{self.stdin_kind}") if self.input == STANDARD else self.input

    def rows(self, task: Task, stream: BinaryIO) -> Iterator["DataRow"]:
        """The rows of the file, or of standard input."""
        if self.input == STANDARD:
            return standard_rows(task, self.name, stream)
        return file_rows(task, self.input, stream)

    def belongs_to(self, opened: "OpenedModel") -> Mapping[str, str]:
        """The facts that all runs of one output have in common, by a name for the error.

        Broken rows may be left out from some row on, so that option is not among it.

        Raises:
            BadData: no such input.
        """
        if self.input == STANDARD:
            return {}
        from spd_train.data.text_stream import opened_file

        with opened_file(self.input):
            found = self.input.stat()
        return {
            "input": str(self.input.resolve()),
            "content of the input": f"{found.st_size} bytes of {found.st_mtime_ns} ns",
            "model": model_hash(opened),
            "runtime": str(opened.session.description),
            "--text-column": str(self.text_column),
            "--pair-column": str(self.pair_column),
            "--long-texts": "cut" if self.windows is None else str(self.windows),
            "output format": str(self.format),
            "size of chunks": str(self.limits),
            "version of spd": str(version_of(PACKAGE)),
        }


def model_hash(opened: "OpenedModel") -> str:
    """The hash of all files that the model's answers depend on."""
    source = opened.source
    if isinstance(source, Artefact):  # its manifest has the hash of every file
        return sha256_of(source.folder / MANIFEST_FILE)
    small = (source.folder / name for name in (CONFIG_FILE, TOKENIZER_FILE))
    return " ".join([source.weights_sha256, *(sha256_of(f) for f in small if f.is_file())])
