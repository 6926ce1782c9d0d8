"""The kernel's benchmark, as far as a machine without a GPU goes; and what it makes of samples."""

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import kernel as script
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


def test_a_case_that_does_not_run_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stands in both files with the reason; what was measured before an end is there too."""

    def some(case: Case, rounds: int) -> Result:
        """The second case fails in a library's words, and the second product ends the run."""
        if case.product != "qkv":
            raise KeyboardInterrupt
        if case.tokens == 512:
            raise RuntimeError("CUDA error: an illegal memory access")
        times = {arm: [1e-5] * rounds for arm in ("kernel", "kept", "dense")}
        return Result(case=case, tile=Tile(rows=64, tokens=128, inputs=32), hot=times, cold=times)

    for refusal in ("refuse_unsupported_gpu", "refuse_no_triton"):
        monkeypatch.setattr(script, refusal, lambda: None)
    monkeypatch.setattr(script, "measured", some)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    sizes = ("--model", "base", "--tokens", "128", "512", "1024", "--density", "0.1")

    with pytest.raises(KeyboardInterrupt):
        called(monkeypatch, *sizes, "--number", "fp16", "--output", str(tmp_path / "out"))

    document = json.loads((tmp_path / "out" / "kernel.json").read_text())
    assert [one["case"]["tokens"] for one in document["results"]] == [128, 1024]
    assert [one["case"]["tokens"] for one in document["lacking"]] == [512]
    reason = (
        "base qkv 2304x768 at 10%, 64x1, fp16, 512 tokens: "
        "RuntimeError: CUDA error: an illegal memory access"
    )
    assert f"Not run: {reason}" in (tmp_path / "out" / "kernel.md").read_text()
    assert reason in capsys.readouterr().err


@pytest.mark.gpu
def test_on_a_gpu_it_writes_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the machine named, and every sample of every arm."""
    sizes = ("--model", "base", "--tokens", "128", "--density", "0.1", "--number", "fp16")

    called(monkeypatch, *sizes, "--rounds", "3", "--output", str(tmp_path / "out"))

    document = json.loads((tmp_path / "out" / "kernel.json").read_text())
    assert len(document["results"]) == 4
    assert all(len(one["hot"]["kernel"]) == 3 for one in document["results"])
    assert torch.cuda.get_device_name() in (tmp_path / "out" / "kernel.md").read_text()
