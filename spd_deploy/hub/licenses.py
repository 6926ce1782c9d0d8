"""The licence of a model, as the metadata of its own card says."""

from pathlib import Path
from typing import Any

from spd_deploy.hub.model_files import CARD_FILE


def license_in(folder: Path) -> str | None:
    """The licence that the model card in a folder names; None where there is none."""
    file = folder / CARD_FILE
    if not file.is_file():
        return None
    found = metadata_in(file).get("license")
    return found if isinstance(found, str) else None


def metadata_in(file: Path) -> dict[str, Any]:
    """The metadata of a model card; empty where it has none, or none that can be read."""
    try:
        from huggingface_hub import metadata_load

        return metadata_load(file) or {}
    except Exception:  # noqa: BLE001 - a card is prose of others, and decides nothing
        return {}
