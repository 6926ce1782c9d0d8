"""Folders of the user's cache, whose names say what is in them: of two the first stays."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spd_deploy.domain.files import refusals_named


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder beside ``folder`` that becomes it, if the block succeeds.

    If another process made it meanwhile, that one stays: its files may be in use.

    Raises:
        NotWritten: the operating system refused (full disk, no permission, read-only).
    """
    with refusals_named(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
            draft = Path(scratch) / folder.name
            draft.mkdir()
            yield draft
            try:
                draft.rename(folder)
            except OSError:  # a folder that is not empty is not replaced
                if not folder.is_dir():
                    raise
