"""The script of the whole grid: its order, its budget, and its refusal."""

import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_models as models
from benchmarks.gpu_artefacts import Job, do, in_child, lines_in_child, main
from benchmarks.gpu_grid import BATCHES, SEQS, Grid, shapes_by_worth
from benchmarks.gpu_lines import Line, line_text, lines_of
from benchmarks.gpu_models import made_of
from benchmarks.shapes import MODELS
from spd_deploy.benchmark.records import Shape, Skipped
from spd_deploy.domain.errors import Unavailable
from spd_deploy.domain.patterns import NM
from tests.benchmark.made_device import two_dense_and_a_block


def grid(folder: Path) -> Grid:
    return Grid(scratch=folder, output=folder, dense=("torch-eager",), rounds=2, seconds=0.1)


def test_every_shape_comes_once_and_the_headline_first() -> None:
    """32x128 leads, and the grid is whole."""
    found = shapes_by_worth()

    assert found[0] == Shape(batch=32, seq=128)
    assert sorted(found) == list(Shape.grid(BATCHES, SEQS))


def test_maps_come_after_the_first_rows(tmp_path: Path) -> None:
    """A cut after some minutes leaves the rows that say most, and the maps of both models."""
    names = list(grid(tmp_path).jobs(["base", "large"]))

    assert names[:2] == ["base 32x128", "base 1x128"]
    assert names[3:6] == ["map base", "map large", "large 32x128"]
    assert len(names) == len(set(names)) == 2 * len(BATCHES) * len(SEQS) + 2


def test_jobs_are_done_until_the_time_is_up() -> None:
    """What fails and what comes too late has a line with the reason, and nothing is left out."""
    minutes = itertools.count(step=60.0)

    def one() -> Iterator[Line]:
        yield {"arm": "a", "gpu_s": 1e-3}

    def broken() -> Iterator[Line]:
        yield {"arm": "b", "gpu_s": 2e-3}
        raise Unavailable("no kernel", fix="get one")

    jobs = [Job(name=str(i), work=work) for i, work in enumerate((one, broken, one, one))]
    found = list(do(jobs, budget_s=300.0, clock=lambda: next(minutes)))

    assert [(line["job"], line.get("not_run")) for line in found] == [
        ("0", None),
        ("1", None),
        ("1", "no kernel; get one"),
        ("2", "the 5 minutes were up"),
        ("3", "the 5 minutes were up"),
    ]
    assert line_text(found[0]) == "0 a: 1.000 ms, dense"
    assert line_text(found[2]) == "1: not run: no kernel; get one"


def test_what_nobody_foresaw_ends_one_job_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines before it stay, its kind is named, its traceback shown, and the next job runs."""

    def broken(self: Grid, model: str) -> Iterator[Line]:
        yield {"arm": "a"}
        raise KeyError("gone")

    monkeypatch.setattr(Grid, "map", broken)
    of_job = partial(lines_in_child, grid(tmp_path), ["base"], "map base")

    assert of_job() == [{"arm": "a"}, {"not_run": "KeyError: 'gone'"}]
    assert "Traceback" in capsys.readouterr().err

    def unpicklable() -> Iterator[Line]:
        raise TypeError("it does not travel")

    jobs = [Job(name="a", work=unpicklable), Job(name="b", work=of_job)]
    found = list(do(jobs, budget_s=9.0, clock=lambda: 0.0))

    assert found[0] == {"job": "a", "not_run": "TypeError: it does not travel"}
    assert found[1] == {"job": "b", "arm": "a"}


@pytest.mark.parametrize("fault", [None, "no CUDA provider"])
def test_a_form_that_does_not_run_here_is_not_exported(
    fault: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the reason for each checkpoint; the others are exported, and found again later."""
    onnx = replace(models.FORMS["onnx"], fault=lambda: fault)
    monkeypatch.setitem(models.FORMS, "onnx", onnx)
    monkeypatch.setattr(models, "PATTERNS", {"2-4": NM(n=2, m=4)})
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    monkeypatch.setitem(MODELS, "base", {"num_hidden_layers": 1, **sizes})

    made = made_of(tmp_path, "base")

    names = [artefact.folder.name for artefact in made.exported]
    assert names == ["2-4-torch", *([] if fault else ["2-4-onnx"])]
    assert made.skipped == ((Skipped(name="2-4-onnx", reason=fault),) if fault else ())
    again = made_of(tmp_path, "base")
    assert [one.manifest for one in again.exported] == [one.manifest for one in made.exported]


def test_a_report_gives_a_line_an_arm_and_one_for_what_is_absent() -> None:
    """Both clocks, the baseline's name and the verdict are JSON in it."""
    found = [json.loads(json.dumps(line)) for line in lines_of(two_dense_and_a_block())]

    assert [line["arm"] for line in found] == ["eager", "compile", "block", "tensorrt-fp16"]
    block = found[2]
    assert block["against"] == "compile"
    assert block["gpu"].startswith("faster 2.0")
    assert block["limit_s"] == pytest.approx(5e-3)
    assert found[3]["not_run"] == "TensorRT is not installed"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_job_has_a_process_of_its_own(tmp_path: Path) -> None:
    """What it cannot do there comes back as a line with the reason."""
    (line,) = in_child(grid(tmp_path), ["base"], "map base")

    assert "CUDA" in line["not_run"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_script_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It exits with one line, and nothing is made."""
    monkeypatch.setattr(sys, "argv", ["gpu_artefacts", "--output", str(tmp_path / "o")])

    with pytest.raises(SystemExit) as ended:
        main()

    assert str(ended.value).startswith("benchmarks.gpu_artefacts: PyTorch finds no CUDA device")
    assert "\n" not in str(ended.value)
    assert not (tmp_path / "o").exists()
