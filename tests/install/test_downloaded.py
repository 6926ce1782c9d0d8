"""The wheel installed by pip from the package index, an empty environment for each extra."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.install.commands import ENOUGH
from tests.install.environments import ROOT, run_spd

COMMANDS = {
    "": ("predict artefact text", "inspect artefact", "doctor"),
    "evaluate": ("evaluate artefact --data rows",),
    **{extra: (command,) for extra, command in ENOUGH.items()},
}


@pytest.mark.slow
@pytest.mark.parametrize("extra", COMMANDS)
def test_pip_installs_what_the_verbs_of_an_extra_need(
    extra: str, wheel: Path, place: Path, tmp_path: Path
) -> None:
    """In an environment with the wheel, ONNX Runtime and one extra its verbs succeed."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    programs = tmp_path / "venv" / "bin"
    pinned = ["-c", str(ROOT / "constraints.txt")]
    wanted = f"{wheel}[{','.join(filter(None, ('cpu', extra)))}]"
    subprocess.run([programs / "pip", "install", "--quiet", *pinned, wanted], check=True)
    size = sum(file.stat().st_size for file in (tmp_path / "venv").rglob("*") if file.is_file())
    print(f"{extra or 'base'}: {size / 1e6:.0f} MB")

    for command in COMMANDS[extra]:
        done = run_spd(programs, place, *command.split())
        assert done.returncode == 0, done.stderr
