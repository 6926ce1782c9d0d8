"""Environments without a download: the wheel, and just the packages that it requires.

A package that is installed in the environment of the tests is linked into a new one, with all that
it requires itself and nothing else. That takes a second, and what an extra lacks is really absent.
"""

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGE = "spd-deploy"


def built_wheel(folder: Path) -> Path:
    """The wheel of this source tree."""
    code = f"from hatchling.build import build_wheel; build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def environment(folder: Path, wheel: Path, *extras: str) -> Path:
    """Make an environment in ``folder`` with the wheel and these extras.

    Returns:
        Its folder of programs.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(packages)
    for name in required(packages, extras):
        link(metadata.distribution(name), packages)
    return folder / "bin"


def required(packages: Path, extras: Sequence[str]) -> list[str]:
    """The distributions that the wheel in ``packages`` requires with ``extras``, in all depths."""
    (own,) = metadata.distributions(name=PACKAGE, path=[str(packages)])
    seen: set[tuple[str, str]] = set()
    waiting = [(PACKAGE, extra) for extra in ("", *extras)]
    while waiting:
        if (one := waiting.pop()) in seen:
            continue
        seen.add(one)
        name, extra = one
        found = own if name == PACKAGE else metadata.distribution(name)
        for requirement in map(Requirement, found.requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                wanted = re.sub(r"[-_.]+", "-", requirement.name.lower())
                waiting.extend((wanted, more) for more in ("", *requirement.extras))
    return sorted({name for name, _ in seen} - {PACKAGE})


def link(found: metadata.Distribution, packages: Path) -> None:
    """Link the top folders and files of a distribution into ``packages``."""
    for top in tops(found):
        target = packages / top
        if not target.exists():
            target.symlink_to(Path(str(found.locate_file(top))).resolve())


def tops(found: metadata.Distribution) -> Iterator[str]:
    """The names in site-packages that belong to a distribution."""
    names = {f.parts[0] for f in found.files or []} - {"..", "__pycache__"}
    yield from sorted(names)


def run_spd(programs: Path, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run ``spd WORDS`` in ``place`` with the packages of that environment alone."""
    cleared = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    start = "from spd_deploy.__main__ import main; main()"
    return subprocess.run(
        [str(programs / "python"), "-P", "-c", start, *words],
        cwd=place, env=cleared, capture_output=True, text=True, check=False,
    )  # fmt: skip
