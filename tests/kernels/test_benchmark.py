"""The kernel's benchmark, as far as a machine without a GPU goes; and what it makes of samples."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.kernel import COLUMNS, Case, Result, cells, main
from spd_deploy.kernels.tiles import Tile


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """The script, as if typed."""
    monkeypatch.setattr(sys, "argv", ["benchmarks.kernel", *words])
    main()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, and writes nothing."""
    with pytest.raises(SystemExit, match=r"benchmarks\.kernel: PyTorch finds no CUDA device"):
        called(monkeypatch, "--output", str(tmp_path / "out"))

    assert not list(tmp_path.iterdir())


def test_it_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with something in it is refused before anything is measured."""
    (tmp_path / "thesis").write_text("mine")

    with pytest.raises(SystemExit, match="already exists"):
        called(monkeypatch, "--output", str(tmp_path))


def test_it_tells_what_it_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its help has the commands."""
    with pytest.raises(SystemExit, match="0"):
        called(monkeypatch, "--help")

    assert "python -m benchmarks.kernel --output DIR" in capsys.readouterr().out


def test_rates_and_gains_are_of_medians() -> None:
    """A rate counts what is left, or of the dense product all; a share and a gain are ratios."""
    case = Case(
        model="base",
        product="first",
        outputs=3072,
        inputs=768,
        density=0.25,
        rows=64,
        number="fp16",
        tokens=4096,
    )
    hot = {"kernel": [9.0, 2e-5, 1e-5], "kept": [1e-5] * 3, "dense": [6e-5] * 3}

    result = Result(
        case=case, tile=Tile(rows=64, tokens=128, inputs=32), hot=hot, cold={**hot, "dense": [8e-5]}
    )

    assert case.kept == 192
    assert result.rate("kernel") == 2 * 3072 * 192 * 4096 / 2e-5
    assert result.rate("dense") == 2 * 3072 * 768 * 4096 / 6e-5
    assert result.share == 0.5
    assert result.gain(result.hot) == pytest.approx(3)
    assert result.gain(result.cold) == pytest.approx(4)
    assert len(cells(result)) == len(COLUMNS)


@pytest.mark.gpu
def test_on_a_gpu_it_writes_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the machine named, and every sample of every arm."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    sizes = ("--model", "base", "--tokens", "128", "--density", "0.1", "--number", "fp16")

    called(monkeypatch, *sizes, "--rounds", "3", "--output", str(tmp_path / "out"))

    document = json.loads((tmp_path / "out" / "kernel.json").read_text())
    assert len(document["results"]) == 4
    assert all(len(one["hot"]["kernel"]) == 3 for one in document["results"])
    assert torch.cuda.get_device_name() in (tmp_path / "out" / "kernel.md").read_text()
