"""A map by the GPU's kernels, timed by a stopwatch that counts multiplications instead."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from torch.utils.flop_counter import FlopCounterMode

from exporters.precision import Precision
from spd_deploy.benchmark.breakeven.gpu_products import Product
from spd_deploy.benchmark.breakeven.map_figure import draw_map
from spd_deploy.benchmark.breakeven.map_plan import MapPlan
from spd_deploy.benchmark.breakeven.map_records import (
    BreakEvenMap,
    MapGain,
    MapMatrix,
    MapRow,
    read_map,
    text_from_map,
)
from spd_deploy.benchmark.breakeven.map_summary import (
    advice_lines,
    breakeven_lines,
    map_caveats,
    map_table,
)
from spd_deploy.benchmark.breakeven.run_map import measure_map
from spd_deploy.cli.main import cli
from spd_deploy.domain.nvidia import GpuReading
from spd_deploy.domain.patterns import NM, Block, Structured, Unstructured
from spd_deploy.timing.host_clock import TimingSettings
from tests.benchmark.breakeven.made_map import gain_of, made_map
from tests.nvml import h100_reading


class Counting:
    """Says that a product takes as long as the operations it does, which PyTorch counts."""

    device = "cpu"

    def prepare(self, product: Product) -> Callable[[], float]:
        with FlopCounterMode(display=False) as counter:
            product()
        return lambda: 1e-9 * float(counter.get_total_flops())


def slow(at_s: float) -> GpuReading:
    """A card that its power cap holds back."""
    return h100_reading(at_s)


@pytest.fixture(scope="module")
def found() -> BreakEvenMap:
    plan = MapPlan(
        model=None,
        parts=(MapMatrix(shape=(128, 64), count=4), MapMatrix(shape=(256, 64), count=1)),
        tokens=(4, 8),
        patterns=(
            Block(rows=16, columns=1, sparsity=0.75),
            NM(n=2, m=4),
            Structured(sparsity=0.5),
            Unstructured(sparsity=0.9),
        ),
        precisions=(Precision.FP16,),
        threads=None,
        timing=TimingSettings(seconds=1e-6, rounds=2),
        device="cuda",
    )
    return measure_map(plan, product_clock=Counting(), read_state=slow)


def test_each_way_has_its_rows(found: BreakEvenMap) -> None:
    """Blocks stand there gathered and by Triton, each pattern once a kernel."""
    assert found.lines == (
        "block:16x1, gathered, fp16", "block:16x1, triton, fp16", "2:4, sparse tensor cores, fp16",
        "structured, compact, fp16", "unstructured, fp16",
    )  # fmt: skip
    assert (found.device, found.settings.threads) == ("cuda", None)


def test_what_runs_is_timed_and_what_does_not_says_why(found: BreakEvenMap) -> None:
    """Fewer numbers gain; kernels that are not here, and patterns without any, have reasons."""
    gathered = MapRow(pattern="block:16x1", sparsity=0.75, precision="fp16", kernel="gathered")

    for cell in found.cells:
        assert len(cell.dense_s) == 2
        assert bool(cell.reason) != cell.measured
    assert gain_of(found, 4, gathered).ratio == pytest.approx(4)
    assert gain_of(
        found, 4, replace(gathered, pattern="structured", sparsity=0.5, kernel="compact")
    ) == (MapGain(ratio=2.0))
    assert "runs on a GPU" in found.reasons["block:16x1, triton, fp16"]
    assert "skips single zeros" in found.reasons["unstructured, fp16"]
    assert "does not run here" in found.reasons["2:4, sparse tensor cores, fp16"]


def test_a_throttled_card_is_doubted(found: BreakEvenMap) -> None:
    """Its states are caveats of the map; a card whose states are not known has a caveat too."""
    assert any(
        "of the GPU: it was throttled under load (power cap)" in d for d in map_caveats(found)
    )
    assert any("the driver did not tell; see" in d for d in map_caveats(replace(found, states=())))
    assert not any("GPU" in d for d in map_caveats(made_map()))


def test_it_comes_back_and_is_drawn(found: BreakEvenMap, tmp_path: Path) -> None:
    """JSON, table, answer and figure take kernels as they take patterns."""
    (tmp_path / "map.json").write_text(text_from_map(found), encoding="utf-8")

    assert read_map(tmp_path / "map.json") == found
    assert draw_map(found).startswith(b"\x89PNG")
    rows = {row[0] for row in map_table(found).rows}
    assert "block:16x1 at 75%, gathered, fp16" in rows
    assert len(list(breakeven_lines(found))) == len({row.pattern for row in found.rows})
    assert next(advice_lines(found)).startswith("On this machine, start with ")


def test_a_map_of_a_cpu_from_before_still_reads(tmp_path: Path) -> None:
    """Without kernels and device it is the map it was."""
    value = json.loads(text_from_map(made_map()))
    del value["device"], value["states"]
    for cell in value["cells"]:
        del cell["kernel"]
    (tmp_path / "map.json").write_text(json.dumps(value), encoding="utf-8")

    assert read_map(tmp_path / "map.json") == made_map()


def test_without_a_gpu_the_command_says_so(tmp_path: Path) -> None:
    """One line, and nothing is written."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    words = ["map", "--device", "cuda", "--shape", "128x64", "--output", str(tmp_path / "m")]

    result = CliRunner().invoke(cli, words)
    threaded = CliRunner().invoke(cli, [*words, "--threads", "2"])

    assert (result.exit_code, threaded.exit_code) == (1, 2)
    assert "PyTorch finds no CUDA device" in result.stderr
    assert "--threads goes with --device cpu" in threaded.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.gpu
def test_a_gpu_is_mapped() -> None:
    """On a GPU dense and gathered products have times, and 2:4 has times or a reason."""
    plan = MapPlan(
        model=None,
        parts=(MapMatrix(shape=(768, 768), count=1),),
        tokens=(128,),
        patterns=(Block(rows=64, columns=1, sparsity=0.9), NM(n=2, m=4)),
        precisions=(Precision.FP16,),
        threads=None,
        timing=TimingSettings(seconds=0.02, rounds=2),
        device="cuda",
    )

    found = measure_map(plan)

    gathered, *_ = found.cells
    assert gathered.measured
    assert 1e-7 < min(gathered.dense_s) < 1e-2
