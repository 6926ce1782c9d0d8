"""Extras: what they bring, and the refusal where they are missing."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.extras import (
    DISTRIBUTIONS,
    EXTRAS,
    lacking_extra,
    needs_extras,
    require_extras,
)

ROOT = Path(__file__).parents[2]


def declared(extra: str) -> set[str]:
    """The packages of an extra in pyproject.toml, with those of the extras that it contains."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = set()
    for line in project["optional-dependencies"][extra]:
        if own := re.fullmatch(r"spd-deploy\[(.+)\]", line):
            found |= {name for part in own[1].split(",") for name in declared(part)}
        else:
            found.add(re.split(r"[<>=]", line)[0])
    return found


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_is_what_pyproject_declares(extra: str) -> None:
    """The table that refusals are made from and the one that pip reads have the same packages."""
    assert {DISTRIBUTIONS.get(name, name) for name in EXTRAS[extra]} == declared(extra)


def test_what_is_installed_is_not_refused() -> None:
    """The function runs as it is and returns what it returns."""

    @needs_extras("bench", *EXTRAS)
    def doubled(number: int) -> int:
        return 2 * number

    assert doubled(4) == 8


def test_a_missing_package_is_refused_before_anything_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The line has the command, the packages by the names of pip, and only extras that lack any."""
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "onnx", None)

    @needs_extras("bench", "parquet", "evaluate", "export")
    def never() -> None:
        raise AssertionError("it ran")

    with pytest.raises(Unavailable) as refused:
        never()
    assert str(refused.value) == (
        "spd bench needs packages that are not installed: scikit-learn, onnx; "
        "pip install 'spd-deploy[evaluate,export]'"
    )


def test_a_way_without_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands after the command."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(Unavailable, match=r"'spd-deploy\[parquet\]', or write .csv$"):
        require_extras("reading Parquet", "parquet", otherwise="write .csv")


def test_an_import_that_fails_names_the_smallest_extra() -> None:
    """A module inside a package counts as the package; one of no extra stays an error."""
    found = lacking_extra(ModuleNotFoundError(name="torch.nn"))

    assert found is not None and found.fix == "pip install 'spd-deploy[torch]'"
    assert lacking_extra(ModuleNotFoundError(name="tests.gone")) is None
