"""The folders of a family: ``2x``, ``2.5x`` after the speed-ups, and ``layers-3``."""

from pathlib import Path

FAMILY_FILE = "family.json"


def member_folder(output: Path, speedup: float) -> Path:
    """The folder of the member with this speed-up."""
    return output / f"{speedup:g}x"


def shallow_folder(output: Path, layers: int) -> Path:
    """The folder of the shallower dense student with so many layers."""
    return output / f"layers-{layers}"


def folders_of_members(output: Path) -> list[Path]:
    """The folders of the members that were started in ``output``, the slowest first."""
    found = [(_speedup_of(folder), folder) for folder in output.glob("*x") if folder.is_dir()]
    return [folder for speedup, folder in sorted(found) if speedup > 1]


def _speedup_of(folder: Path) -> float:
    """The speed-up that a folder is named after; 0 if it is not."""
    try:
        return float(folder.name.removesuffix("x"))
    except ValueError:
        return 0.0
