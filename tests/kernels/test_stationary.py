"""The kernel whose weights stay in shared memory: its numbers, its tile, its machine code."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import triton
from hypothesis import given, settings
from hypothesis import strategies as st

from spd_deploy.domain.number_types import FloatType
from spd_deploy.kernels.stationary import StationaryTile, stationary_tile
from spd_deploy.kernels.tiles import ProblemSize
from tests.kernels.ahead import compiled_stationary
from tests.kernels.interpreter import Interpreter
from tests.kernels.made import CLOSE, activations, expected, made, off

SMALL = StationaryTile(rows=16, tokens=16, splits=2)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_it_is_the_dense_product(interpreter: Interpreter, data: st.DataObject) -> None:
    """Any groups, rows, kept inputs, tokens, splits, numbers and epilogues."""
    groups, rows = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 40))
    blocks = data.draw(st.integers(1, 40))
    kept, tokens = data.draw(st.integers(1, blocks)), data.draw(st.integers(1, 70))
    number: FloatType = data.draw(st.sampled_from(["fp16", "bf16", "fp32"]))
    activation = data.draw(st.sampled_from(["none", "gelu", "relu"]))
    tile = StationaryTile(
        rows=data.draw(st.sampled_from([16, 32])),
        tokens=data.draw(st.sampled_from([16, 32])),
        splits=data.draw(st.integers(1, 3)),
    )
    product = made(groups, rows, kept, blocks, dtype=number)
    x_KT = activations(blocks, tokens, number)
    added = activations(groups * rows, tokens, number, seed=2) if data.draw(st.booleans()) else None

    found = interpreter.linear(x_KT, product.weight, tile, activation=activation, residual_NT=added)

    wanted = expected(product, x_KT, activation=activation, residual_NT=added)
    assert off(found, wanted) <= CLOSE[number]


def test_wide_addresses_give_the_same_numbers(interpreter: Interpreter) -> None:
    """In 64 bits, and by however many programs share the tokens."""
    product = made(2, 32, 20, 40)
    x_KT, added = activations(40, 21), activations(64, 21, seed=3)

    found = interpreter.linear(x_KT, product.weight, SMALL, residual_NT=added, wide=True)

    assert torch.equal(found, interpreter.linear(x_KT, product.weight, SMALL, residual_NT=added))
    alone = StationaryTile(rows=16, tokens=16, splits=1)
    assert torch.equal(found, interpreter.linear(x_KT, product.weight, alone, residual_NT=added))


@given(
    groups=st.integers(1, 60),
    rows=st.sampled_from([16, 32, 64, 128, 96]),
    steps=st.integers(1, 60),
    tokens=st.integers(1, 20_000),
    shared=st.sampled_from([99, 163, 227]),
    residual=st.booleans(),
)
def test_a_tile_fits_and_fills_the_gpu(
    groups: int, rows: int, steps: int, tokens: int, shared: int, *, residual: bool
) -> None:
    """It never needs more shared memory than there is, nor more programs than run at once."""
    problem = ProblemSize(groups=groups, rows=rows, inputs=16 * steps, tokens=tokens, dtype="fp16")

    tile = stationary_tile(
        problem, shared_bytes=shared * 1024, multiprocessors=132, residual=residual
    )

    if tile is None:
        least = StationaryTile(rows=min(rows, 128) & -rows, tokens=64, splits=1)
        assert least.shared_bytes(problem.inputs, "fp16", residual=residual) > shared * 1024
        return
    assert tile.shared_bytes(problem.inputs, "fp16", residual=residual) <= shared * 1024
    programs = groups * -(-rows // tile.rows) * tile.splits
    assert tile.splits == 1 or programs <= 132


@pytest.mark.parametrize(
    ("inputs", "stays"), [(80, True), (192, True), (320, True), (768, False)], ids=str
)
def test_what_stays_on_an_h200(inputs: int, stays: bool) -> None:
    """At 90 % all of BERT-base's products, at 75 % all but the second feed-forward one."""
    problem = ProblemSize(groups=6, rows=128, inputs=inputs, tokens=4096, dtype="fp16")

    found = stationary_tile(
        problem, shared_bytes=227 * 1024, multiprocessors=132, residual=inputs > 192
    )

    assert (found is not None) == stays


@pytest.mark.parametrize(
    ("capability", "instruction"),
    [
        (80, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"),
        (90, "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16"),
        (120, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"),
    ],
)
def test_its_machine_code(
    capability: int, instruction: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For BERT-base at 90 %: tensor cores, gathers of 16 bytes, nothing spilt, and it fits."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    shared = {80: 163, 90: 227, 120: 99}[capability] * 1024
    problem = ProblemSize(groups=24, rows=128, inputs=80, tokens=4096, dtype="fp16")
    tile = stationary_tile(problem, shared_bytes=shared, multiprocessors=132, residual=True)
    assert tile is not None

    made = compiled_stationary(capability, tile, inputs=80, activation="gelu", residual=True)

    assert made.tensor_core == instruction
    assert made.shared_bytes <= tile.shared_bytes(80, "fp16", residual=True) <= shared
    assert made.ptx.count("wgmma.mma_async.sync") == (
        5 if capability == 90 else 0
    )  # 16 inputs each
    assert re.search(r"cp\.async\.cg\.shared\.global \[[^]]*\], \[[^]]*\], (0x10|16)", made.ptx)
    assert "st.global.v4" in made.ptx
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    tool = shutil.which("cuobjdump", path=str(tools))
    if tool is None:
        pytest.skip("this Triton carries no cuobjdump")
    (tmp_path / "kernel.cubin").write_bytes(made.cubin)
    told = subprocess.run(
        [tool, "--dump-resource-usage", tmp_path / "kernel.cubin"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "STACK:0 " in told
    assert "LOCAL:0 " in told
