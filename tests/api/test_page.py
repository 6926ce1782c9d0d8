"""The page of the Python API does what it shows."""

import re
import shutil
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/reference/python-api.md"


def test_the_blocks_of_the_page_run(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run in order, each by itself, in a folder with the files that the page names."""
    shutil.copytree(place / "MINILM_FOLDER", tmp_path / "MINILM_FOLDER")
    shutil.copy(place / "reviews.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    shorter = {'pattern="block:64x1"': 'pattern="block:32x1", max_tokens=32, threads=1'}

    for block in blocks:
        for old, new in shorter.items():  # the tiny model has matrices of 32 and 64 rows
            block = block.replace(old, new)
        exec(compile(block, str(PAGE), "exec"), {"__name__": "page"})

    assert len(blocks) == 4
    assert (tmp_path / "reports" / "reviews" / "report.html").is_file()
