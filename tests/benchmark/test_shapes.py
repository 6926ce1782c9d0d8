"""The script of the shapes, and ``make bench``, which runs it: no work is lost at the end."""

import re
import sys
from pathlib import Path

import pytest

from benchmarks import shapes

MAKEFILE = Path(__file__).parents[2] / "Makefile"


class BegunError(Exception):
    """Raised in the place of the first model, which takes a while to make."""


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """The script, as if typed, up to the first model."""

    def begun(*_: object) -> None:
        raise BegunError

    monkeypatch.setattr(shapes, "arms_for", begun)
    monkeypatch.setattr(sys, "argv", ["benchmarks.shapes", *words])
    shapes.main()


def test_a_taken_output_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier report without --overwrite, and what is none with it, cost no measurement."""
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(SystemExit, match=r"benchmarks\.shapes: .* already exists.*--overwrite"):
        called(monkeypatch, "--output", str(tmp_path))
    (tmp_path / "thesis").write_text("mine")
    with pytest.raises(SystemExit, match="is not an earlier report"):
        called(monkeypatch, "--output", str(tmp_path), "--overwrite")


def test_an_earlier_report_is_measured_again_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --overwrite the work begins, as it does where nothing is."""
    (tmp_path / "report.json").write_text("{}")

    with pytest.raises(BegunError):
        called(monkeypatch, "--output", str(tmp_path), "--overwrite")
    with pytest.raises(BegunError):
        called(monkeypatch, "--output", str(tmp_path / "new"))


def test_make_bench_can_be_run_again() -> None:
    """Both models go through both scripts, and what an earlier run wrote is replaced."""
    recipe = MAKEFILE.read_text(encoding="utf-8").partition("\nbench:")[2].partition("\n\n")[0]
    found = re.findall(r"-m benchmarks\.(\w+) --model (\w+)(.*)", recipe)

    assert [(script, model) for script, model, _ in found] == [
        ("baseline", "minilm"), ("baseline", "base"), ("shapes", "minilm"), ("shapes", "base"),
    ]  # fmt: skip
    assert all("--overwrite" in rest for script, _, rest in found if script == "shapes")
