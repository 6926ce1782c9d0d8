"""The kernel compiled for GPUs that are not here: tensor cores, wide loads, and no spill."""

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from spd_deploy.domain.number_types import FloatType
from spd_deploy.kernels.tiles import ProblemSize, Tile, candidates
from tests.kernels.ahead import Compiled, compiled_linear


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Triton compiles anew, into a folder of the test's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


def tile_of(rows: int, dtype: FloatType) -> Tile:
    """A candidate of blocks of so many rows for many tokens: whole groups, 128 tokens by 32."""
    problem = ProblemSize(groups=48, rows=rows, inputs=80, tokens=4096, dtype=dtype)
    found = [t for t in candidates(problem) if (t.tokens, t.inputs) == (128, 32)]
    return max(found, key=lambda tile: tile.rows)


@functools.cache
def compiled(capability: int, dtype: FloatType, rows: int, *, aligned: bool = True) -> Compiled:
    """With everything that can be fused."""
    return compiled_linear(
        capability,
        dtype,
        tile_of(rows, dtype),
        group_rows=rows,
        activation="gelu",
        residual=True,
        aligned=aligned,
    )


@pytest.mark.parametrize(
    ("capability", "dtype", "rows", "instruction"),
    [
        (80, "fp16", 64, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"),
        (80, "bf16", 8, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"),
        (90, "fp16", 64, "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16"),
        (90, "bf16", 32, "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16"),
    ],
)
def test_it_multiplies_on_tensor_cores(
    capability: int, dtype: FloatType, rows: int, instruction: str
) -> None:
    """Each GPU's own instruction, with sums in fp32."""
    assert compiled(capability, dtype, rows).tensor_core == instruction


def test_loads_and_stores_are_wide() -> None:
    """Tokens in 16s: 16 bytes at a time, copied past the registers; else it still compiles."""
    aligned = compiled(90, "fp16", 64).ptx
    ragged = compiled(90, "fp16", 64, aligned=False).ptx

    assert "cp.async.cg.shared.global" in aligned
    assert "st.global.v4" in aligned
    assert "st.global.v4" not in ragged


def test_every_stage_of_the_pipeline_is_used() -> None:
    """So many steps are under way as the tile says: shared memory holds them all."""
    assert compiled(90, "fp16", 64).shared_bytes == tile_of(64, "fp16").shared_bytes("fp16")


def test_nothing_spills(tmp_path: Path) -> None:
    """The tile keeps its sums in registers, GELU and all."""
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    tool = shutil.which("cuobjdump", path=str(tools))
    if tool is None:
        pytest.skip("this Triton carries no cuobjdump")
    file = tmp_path / "kernel.cubin"
    file.write_bytes(compiled(90, "fp16", 64).cubin)

    told = subprocess.run(
        [tool, "--dump-resource-usage", file], capture_output=True, text=True, check=True
    )

    assert "STACK:0 " in told.stdout
    assert "LOCAL:0 " in told.stdout


def test_gelu_is_without_a_call_and_short() -> None:
    """One exponential a number and no branch of the library's error function."""
    gelu = compiled(90, "fp16", 64).ptx
    plain = compiled_linear(90, "fp16", tile_of(64, "fp16"), group_rows=64, residual=True).ptx
    numbers = gelu.count("ex2.approx")  # of one thread

    assert numbers == 64
    assert (gelu.count("\n") - plain.count("\n")) / numbers < 24
