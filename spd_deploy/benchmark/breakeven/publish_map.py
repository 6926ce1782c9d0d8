"""Writes a map where people and programs find it: JSON and a picture."""

from pathlib import Path

from spd_deploy.benchmark.breakeven.map_figure import draw_map
from spd_deploy.benchmark.breakeven.map_records import BreakEvenMap, text_from_map
from spd_deploy.domain.files import refuse_foreign, replacing

JSON_FILE = "map.json"
PICTURE_FILE = "map.png"


def refuse_taken(folder: Path, *, overwrite: bool) -> None:
    """Refuse a place for a map, before the time for measuring is spent.

    Raises:
        NotWritten: something is there already that is not to be replaced, or never is.
    """
    ours = {JSON_FILE, PICTURE_FILE}
    refuse_foreign(folder, overwrite=overwrite, what="map", ours=ours.__contains__)


def write_map(found: BreakEvenMap, folder: Path, *, overwrite: bool = False) -> None:
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
