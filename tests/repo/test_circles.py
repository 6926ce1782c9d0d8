"""Imports between our modules form no circle, counting those inside functions and for types."""

import ast
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.repo.test_rules import PACKAGES, ROOT, module_of, sources

MODULES = {module_of(file): file for file in sources(*PACKAGES)}


def imports_of(file: Path) -> Iterator[str]:
    """The modules of ours that a file imports anywhere."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                yield inside if inside in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def graph(*folders: str) -> dict[str, set[str]]:
    """Each module of the folders with the modules that it imports."""
    return {
        module: {name for name in imports_of(file) if name in MODULES and name != module}
        for module, file in MODULES.items()
        if module.split(".")[0] in folders
    }


def refuse_circles(edges: Mapping[str, set[str]]) -> None:
    """Raise graphlib's CycleError, which names the circle, if there is one."""
    TopologicalSorter(edges).prepare()


def test_no_module_imports_itself_in_the_end() -> None:
    """No chain of imports leads from a module back to it."""
    refuse_circles(graph(*PACKAGES))


def test_the_folders_of_training_form_no_circle() -> None:
    """The folders and files of ``spd_train`` import each other in one direction only."""

    def room_of(module: str) -> str:
        parts = module.split(".")
        folder = ".".join(parts[:2])
        return folder if (ROOT / Path(*parts[:2])).is_dir() else module

    rooms: dict[str, set[str]] = {}
    for module, imported in graph("spd_train").items():
        rooms.setdefault(room_of(module), set()).update(
            room_of(name) for name in imported if room_of(name) != room_of(module)
        )
    refuse_circles(rooms)


def test_a_circle_is_seen() -> None:
    """A circle of three modules is found and named."""
    with pytest.raises(ValueError, match="cycle"):
        refuse_circles({"a": {"b"}, "b": {"c"}, "c": {"a"}})
