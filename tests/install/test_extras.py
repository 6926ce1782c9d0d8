"""The wheel with few packages: the base serves, and what lacks its extra says so in one line."""

import json
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from spd_deploy.domain.extras import EXTRAS
from tests.install.commands import ENOUGH
from tests.install.environments import environment, required, run_spd

HEAVY = ("accelerate", "matplotlib", "onnx", "pyarrow", "scikit-learn", "scipy", "torch")
READY_WITHIN_S = 120.0
# A command of each verb that does not work in the base, and the extra that it names.
REFUSED = {
    "quickstart --output out": "bench,train",
    "map --output map.json": "bench",
    "train --task sst2 --output out": "train",
    "sweep grid.toml --output out": "train",
    "prune checkpoint --output out": "train",
    "distil --output out": "train",
    "export checkpoint --output out": "export",
    "bench artefact --output out": "bench",
    "evaluate artefact --data rows": "evaluate",
    "inspect checkpoint": "torch",
    "inspect artefact --measure": "bench",
    "predict checkpoint text": "torch",
    "predict artefact --input rows.parquet": "parquet",
    "predict artefact --input texts.jsonl --output out --ray": "ray",
    "serve checkpoint --port 0": "torch",
}


@pytest.fixture(scope="module")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the base and ONNX Runtime."""
    return environment(tmp_path_factory.mktemp("base") / "venv", wheel, "cpu")


def test_the_base_requires_none_of_the_large_packages(base: Path) -> None:
    """What the wheel requires in all depths is what an HTTP server with ONNX Runtime takes."""
    (packages,) = base.parent.glob("lib/python*/site-packages")

    names = required(packages, ["cpu"])

    assert {"onnxruntime", "fastapi", "tokenizers", "numpy"} <= set(names)
    assert not {*HEAVY, "transformers", "pandas"} & set(names)


@pytest.mark.parametrize("verb", ["predict artefact text", "inspect artefact", "doctor --json"])
def test_the_base_predicts_inspects_and_checks(verb: str, base: Path, place: Path) -> None:
    """These verbs succeed where no large package can be imported, beside a user's serve.py."""
    done = run_spd(base, place, *verb.split())

    assert done.returncode == 0, done.stderr
    if verb.startswith("doctor"):
        checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
        assert checks["CPUExecutionProvider"]["ok"] and not checks["torch"]["ok"]
        assert "pip install 'spd-deploy[train]'" in checks["extra train"]["remedy"]
        assert not any("bug" in (check["remedy"] or "") for check in checks.values())


def test_the_base_serves(base: Path, place: Path) -> None:
    """The server opens the artefact and answers a request."""
    start = "from spd_deploy.__main__ import main; main()"
    server = subprocess.Popen(
        [base / "python", "-P", "-c", start, "serve", "artefact", "--port", "0", "--threads", "1"],
        cwd=place, env={"PATH": ""}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stderr is not None
        deadline = time.monotonic() + READY_WITHIN_S
        said = ""
        while not said.startswith("ready on ") and time.monotonic() < deadline:
            said = server.stderr.readline()
            assert said or server.poll() is None
        url = said.removeprefix("ready on ").strip()
        body = json.dumps({"inputs": [{"text": "never dull"}]}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/v1/classify", body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer)["results"][0]["labels"]
        server.terminate()
        assert server.wait(timeout=60) == 0
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize("command", REFUSED)
def test_what_lacks_its_extra_says_so_in_one_line(command: str, base: Path, place: Path) -> None:
    """The line has the command that installs the extra; the exit code is 1, nothing is written."""
    done = run_spd(base, place, *command.split())

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("spd: ") and "not installed" in line
    assert f"pip install 'spd-deploy[{REFUSED[command]}]'" in line
    assert not done.stdout and not (place / "out").exists()


def test_building_an_engine_names_its_extra(base: Path, place: Path) -> None:
    """``spd build`` needs TensorRT; for another artefact it says which format it builds."""
    done = run_spd(base, place, "build", "artefact")

    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("evaluate", "evaluate artefact --data rows"),
        *(
            pytest.param(extra, command, marks=pytest.mark.slow)
            for extra, command in ENOUGH.items()
        ),
    ],
)
def test_an_extra_is_enough_for_its_verb(
    extra: str, command: str, wheel: Path, place: Path, tmp_path: Path
) -> None:
    """Beside the base, ONNX Runtime and this extra the verb needs no other package."""
    programs = environment(tmp_path / "venv", wheel, "cpu", extra)

    done = run_spd(programs, place, *command.split())

    assert done.returncode == 0, done.stderr


def test_every_extra_of_the_table_is_in_the_wheel(base: Path) -> None:
    """The names that a refusal tells pip to install are those of the wheel."""
    (packages,) = base.parent.glob("lib/python*/site-packages")
    metadata = next(packages.glob("spd_deploy-*.dist-info/METADATA")).read_text()

    assert all(f"\nProvides-Extra: {extra}\n" in metadata for extra in EXTRAS)
