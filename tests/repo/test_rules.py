"""Rules of the repository that a machine can keep."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest

from spd_deploy.cli.main import cli
from spd_deploy.domain.patterns import Pattern
from spd_train.sweep.grid_file import read_grid
from tests.domain.test_patterns import ORACLE_PATTERNS

ROOT = Path(__file__).parents[2]
PACKAGES = ("spd_deploy", "spd_train", "exporters", "serve")
HEAVY = (
    "torch",
    "transformers",
    "onnx",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "triton",
    "matplotlib",
    "sklearn",
    "scipy",
    "datasets",
    "pyarrow",
    "ray",
)

# What each layer may import of ours, besides itself; see CONTRIBUTING.
ALLOWED: dict[str, tuple[str, ...]] = {
    "spd_deploy.domain": (),
    "spd_deploy.timing": ("spd_deploy.domain",),
    "spd_deploy.hub": ("spd_deploy.domain",),
    "spd_deploy.kernels": ("spd_deploy.domain", "spd_deploy.timing"),
    "spd_deploy.sessions": ("spd_deploy.domain", "spd_deploy.kernels"),
    "spd_deploy.machine": ("spd_deploy.domain", "spd_deploy.sessions"),
    "spd_train": (
        "spd_deploy.domain",
        "spd_deploy.timing",
        "spd_deploy.hub",
        "spd_deploy.sessions",
    ),
    "exporters": (
        "spd_deploy.domain",
        "spd_deploy.timing",
        "spd_deploy.kernels",
        "spd_deploy.sessions",
    ),
    "serve": ("spd_deploy.domain", "spd_deploy.sessions"),
    "spd_deploy.benchmark": PACKAGES,
    "spd_deploy.scale": PACKAGES,
    "spd_deploy.api": PACKAGES,
    "spd_deploy.cli": PACKAGES,
    "spd_deploy.__main__": ("spd_deploy.cli",),
}


def sources(*folders: str) -> list[Path]:
    return sorted(f for name in folders for f in (ROOT / name).rglob("*.py"))


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def our_imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PACKAGES)


def within(name: str, layers: tuple[str, ...]) -> bool:
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)


def layer_of(module: str) -> str | None:
    return max((layer for layer in ALLOWED if within(module, (layer,))), key=len, default=None)


def test_arrows_point_down() -> None:
    """No layer imports a neighbour or what is above it; the offending line is named."""
    wrong = []
    for file in sources(*PACKAGES):
        module = module_of(file)
        if module == "spd_deploy":  # the front door, which hands out what the API has
            assert set(our_imports(file)) == {"spd_deploy.api"}
            continue
        layer = layer_of(module)
        if layer is None:
            assert not file.read_text().strip(), f"{module} belongs to no layer"
            continue
        wrong += [
            f"{module} imports {name}"
            for name in our_imports(file)
            if not within(name, (layer, *ALLOWED[layer]))
        ]

    assert not wrong, "\n".join(wrong)


def test_a_class_name_is_in_one_module() -> None:
    """No two modules have a public class of one name, so that a name says which is meant."""
    modules: dict[str, set[str]] = {}
    for file in sources(*PACKAGES):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                modules.setdefault(node.name, set()).add(module_of(file))

    assert not {name: where for name, where in modules.items() if len(where) > 1}


def test_importing_is_free() -> None:
    """The Python API, the command line and the server import none of the heavy packages."""
    code = (
        "import sys, spd_deploy.api, spd_deploy.cli.main, serve.app;"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"


def verbs() -> dict[str, click.Command]:
    assert isinstance(cli, click.Group)
    return dict(cli.commands)


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    """Its help tells what it does and shows a command to type, and README shows it too."""
    context = click.Context(verbs()[verb], info_name=f"spd {verb}")

    text = verbs()[verb].get_help(context)

    assert verbs()[verb].help
    assert text.count(f"spd {verb}") >= 2
    assert f"spd {verb}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_folder_of_the_command_line_lists_the_commands() -> None:
    """Each file there is a command or, by its name, a part of one; helpers are in folders."""
    files = {file.stem for file in (ROOT / "spd_deploy/cli").glob("*.py")} - {"__init__", "main"}

    assert set(verbs()) <= files
    assert not [name for name in files if name.split("_")[0] not in verbs()]


def test_every_test_states_a_fact() -> None:
    """Each test has a docstring of one sentence."""
    silent = []
    for file in sources("tests"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                said = ast.get_docstring(node) or ""
                if not said.endswith(".") or "\n\n" in said:
                    silent.append(f"{module_of(file)}.{node.name}")

    assert not silent, silent


def test_docstrings_say_something() -> None:
    """A docstring has more than three words: it adds to the name, or it is not there."""
    idle = []
    for file in sources(*PACKAGES):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text is not None and len(text.split()) <= 3:
                    idle.append(f"{module_of(file)}.{getattr(node, 'name', '')}: {text}")

    assert not idle, "\n".join(idle)


def test_every_pattern_has_an_oracle() -> None:
    """The brute-force tests cover each member of the union."""
    assert {type(pattern) for pattern in ORACLE_PATTERNS} == set(get_args(Pattern))


def test_files_stay_small() -> None:
    """No source file answers two questions: none is past 400 lines."""
    long = [
        f"{f}: {n}"
        for f in sources(*PACKAGES, "benchmarks")
        if (n := len(f.read_text().splitlines())) > 400
    ]

    assert not long, long


def test_the_version_is_the_changelogs() -> None:
    """pyproject.toml and the changelog's first entry name the same version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert newest is not None
    assert newest[1] == project["version"]


@pytest.mark.parametrize(
    "file", sorted((ROOT / "benchmarks/accuracy").glob("*.toml")), ids=lambda f: f.name
)
def test_every_grid_parses(file: Path) -> None:
    """What stands in benchmarks/accuracy is a grid, and its README tells what it is for."""
    grid = read_grid(file)

    assert grid.jobs()
    assert f"`{file.name}`" in (file.parent / "README.md").read_text(encoding="utf-8")


def test_every_folder_is_on_the_map() -> None:
    """CONTRIBUTING names each package folder, so that a newcomer finds the room."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = {f.parent.relative_to(ROOT).as_posix() for f in sources(*PACKAGES)} - {"spd_deploy"}

    assert not [name for name in folders if f"{name}/" not in text]


def test_files_on_the_map_exist() -> None:
    """Every file and folder that CONTRIBUTING names is there, so a move mends the map too."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:spd_|exporters|serve|tests|docs|benchmarks)[\w/]*(?:/|\.\w+))`", text)

    assert len(named) > 60
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_wheel_holds_just_our_packages(tmp_path: Path) -> None:
    """The built wheel has our four packages with their templates, and neither tests nor data."""
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")

    names = zipfile.ZipFile(wheel).namelist()

    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    suffixes = {Path(name).suffix for name in names if ".dist-info/" not in name}
    assert suffixes <= {".py", ".typed", ".j2", ".html", ".css", ".js", ".proto", ".binpb"}
    packaged = {name for name in names if name.endswith(".py")}
    assert packaged == {f.relative_to(ROOT).as_posix() for f in sources(*PACKAGES)}
