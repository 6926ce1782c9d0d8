"""Writes a map where people and programs find it: JSON and a picture."""

from pathlib import Path

from spd_deploy.benchmark.breakeven.figure import draw_map
from spd_deploy.benchmark.breakeven.values import BreakEven, text_from_map
from spd_deploy.domain.errors import NotWritten
from spd_deploy.domain.files import refuse_existing, replacing

JSON_FILE = "map.json"
PICTURE_FILE = "map.png"


def refuse_taken(folder: Path, *, overwrite: bool) -> None:
    """Refuse a place for a map, before the time for measuring is spent.

    Raises:
        NotWritten: something is there already that may not be replaced: without ``overwrite``
            anything, with it whatever is more than an earlier map.
    """
    refuse_existing(folder, overwrite=overwrite)
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    foreign = [name for name in names if name not in (JSON_FILE, PICTURE_FILE)]
    if foreign or folder.is_file():
        raise NotWritten(
            f"{folder} is not an earlier map, so it is not replaced",
            got=f"{min(foreign)!r} in it" if foreign else "a file",
            fix="choose another --output",
        )


def write_map(found: BreakEven, folder: Path, *, overwrite: bool = False) -> None:
    """Write ``map.json`` and ``map.png``, both or neither.

    Raises:
        NotWritten: something is there already, or the disk refused.
    """
    refuse_taken(folder, overwrite=overwrite)
    picture = draw_map(found)
    with replacing(folder) as draft:
        draft.mkdir()
        (draft / JSON_FILE).write_text(text_from_map(found), encoding="utf-8")
        (draft / PICTURE_FILE).write_bytes(picture)
