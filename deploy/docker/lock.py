"""Write the packages of the images with their hashes: ``make lock``.

    python deploy/docker/lock.py

``requirements.txt`` is for the CPU image, on x86-64 and ARM, and ``requirements-cuda.txt`` for the
other. Versions are those of ``constraints.txt``; pip chooses the wheels for the image's Python, and
downloads none. Run it after a change of versions, extras or the base image; a test tells.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
PYTHON = "3.11"
# The newest wheels that Debian 13, the base image, can run.
_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
_HEAD = "# Made by deploy/docker/lock.py: {wanted}, for Python {python} on {machines}.\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """What an image installs.

    Attributes:
        file: the list of its packages.
        wanted: requirements, as its Dockerfile names them.
        machines: the processors that it is built for.
    """

    file: str
    wanted: tuple[str, ...]
    machines: tuple[str, ...]


IMAGES = (
    Image(file="requirements.txt", wanted=(".[cpu,grpc,otel]",), machines=("x86_64", "aarch64")),
    Image(
        file="requirements-cuda.txt",
        wanted=(".[gpu,grpc,otel]", "onnxruntime-gpu[cuda,cudnn]"),
        machines=("x86_64",),
    ),
)


def main() -> None:
    """Write the lists of both images."""
    for image in IMAGES:
        (FOLDER / image.file).write_text(lines_of(image), encoding="utf-8")


def lines_of(image: Image) -> str:
    """The packages of an image as pip reads them, with a hash for each processor's wheel."""
    hashes: dict[str, set[str]] = {}
    for machine in image.machines:
        for package, found in resolved(image.wanted, machine).items():
            hashes.setdefault(package, set()).add(found)
    head = _HEAD.format(
        wanted=" ".join(image.wanted), python=PYTHON, machines=" and ".join(image.machines)
    )
    return head + "".join(
        f"{package} \\\n    "
        + " \\\n    ".join(f"--hash=sha256:{one}" for one in sorted(some))
        + "\n"
        for package, some in sorted(hashes.items())
    )


def resolved(wanted: Iterable[str], machine: str) -> Mapping[str, str]:
    """The SHA-256 of each package that pip would install, by ``name==version``."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        platforms = [word for one in _PLATFORMS for word in ("--platform", f"{one}_{machine}")]
        abis = [word for one in ("cp311", "abi3", "none") for word in ("--abi", one)]
        pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        options = ["--report", str(report), "--constraint", "constraints.txt", "--target", folder]
        wheels = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", PYTHON]
        subprocess.run([*pip, *options, *wheels, *abis, *platforms, *wanted], cwd=ROOT, check=True)
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {
        f"{normal(one['metadata']['name'])}=={one['metadata']['version']}": one["download_info"][
            "archive_info"
        ]["hashes"]["sha256"]
        for one in found
        if "archive_info" in one["download_info"]  # all but our own
    }


def normal(name: str) -> str:
    """The name of a package as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
