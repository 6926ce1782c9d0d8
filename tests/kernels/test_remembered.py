"""What was measured is kept: read strictly, written whole, asked before anything is measured."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spd_deploy.domain.errors import BadReport
from spd_deploy.kernels.remembered import (
    BestTile,
    Known,
    Memory,
    Place,
    TwoFour,
    default_file,
    read_known,
)
from spd_deploy.kernels.tiles import Tile, default_tile
from spd_deploy.kernels.tuning import Tuner
from spd_deploy.kernels.two_four import Chooser, takes_two_four
from tests.kernels.made import activations, made

H100 = Place(gpu="H100", version="triton 3.9.0")
TILE = Tile(rows=32, tokens=64, inputs=16, warps=4, stages=5, tokens_first=True)
BEST = BestTile(place=H100, problem="fp16 12x64x80 4096 tokens none", tile=TILE, seconds=4e-6)
LOST = TwoFour(
    place=Place(gpu="H100", version="torch 2.13"),
    product="fp16 64x64 8 tokens",
    dense_s=2e-6,
    sparse_s=3e-6,
)


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    """Another process finds it, for that GPU, that version and that class of shapes alone."""
    memory = Memory(tmp_path / "deep" / "kernels.json")

    memory.keep(BEST)
    memory.keep(LOST)

    known = read_known(tmp_path / "deep" / "kernels.json")
    assert known == memory.known == Known(tiles=(BEST,), two_four=(LOST,))
    assert known.tile(H100, BEST.problem) == TILE
    assert known.tile(Place(gpu="A100", version=H100.version), BEST.problem) is None
    assert known.tile(Place(gpu="H100", version="triton 3.6.0"), BEST.problem) is None
    assert known.tile(H100, "another") is None
    assert known.two_four_of(LOST.place, LOST.product) == LOST


def test_what_is_measured_again_replaces_what_was_known(tmp_path: Path) -> None:
    """One entry a class of shapes, and what another process wrote meanwhile stays."""
    file = tmp_path / "kernels.json"
    first, second = Memory(file), Memory(file)

    first.keep(BEST)
    second.keep(LOST)
    again = BestTile(
        place=H100, problem=BEST.problem, tile=Tile(rows=64, tokens=64, inputs=32), seconds=3e-6
    )
    first.keep(again)

    assert read_known(file) == Known(tiles=(again,), two_four=(LOST,))


def _text(text: str) -> Callable[[dict[str, Any]], str]:
    return lambda document: text


def _with(**changes: Any) -> Callable[[dict[str, Any]], str]:
    return lambda document: json.dumps({**document, **changes})


def _tile(**changes: Any) -> Callable[[dict[str, Any]], str]:
    def spoiled(document: dict[str, Any]) -> str:
        document["tiles"][0]["tile"] |= changes
        return json.dumps(document)

    return spoiled


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_text("{"), "not valid JSON"),
        (_text("[]"), "not a JSON object"),
        (_with(schema=2), "schema this version does not read"),
        (_with(extra=1), "unknown field; got extra"),
        (_tile(rows=48), "is damaged"),
        (_tile(rows="64"), "is damaged"),
        (_tile(colour=1), "unknown field; got tiles.0.tile.colour"),
    ],
)
def test_a_damaged_file_holds_nothing(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], str], said: str
) -> None:
    """It is refused with its name and what to do; a memory begins empty, and leaves it as it is."""
    file = tmp_path / "kernels.json"
    before = Memory(file)
    before.keep(BEST)
    text = spoil(json.loads(file.read_text()))
    file.write_text(text)

    with pytest.raises(BadReport, match=said) as refused:
        read_known(file)
    memory = Memory(file)
    assert memory.known == Known()
    for one in (memory, before):  # the file of the second was damaged while it ran
        one.keep(LOST)
        assert one.known.two_four_of(LOST.place, LOST.product) == LOST
        assert one.unsaved is not None and "kernels.json" in one.unsaved
        assert str(tmp_path) not in one.unsaved
    assert file.read_text() == text
    assert str(file) in str(refused.value)
    assert "delete" in refused.value.fix


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured still serves this process."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    memory = Memory()

    memory.keep(BEST)

    assert memory.known.tile(H100, BEST.problem) == TILE
    assert memory.unsaved is not None and "no home folder" in memory.unsaved


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """What was measured still serves this process, and why it is not kept can be said."""
    (tmp_path / "file").write_text("in the way")
    memory = Memory(tmp_path / "file" / "kernels.json")

    memory.keep(BEST)

    assert memory.known.tile(H100, BEST.problem) == TILE
    assert memory.unsaved


def test_the_file_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where XDG says, or else below the home folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_file() == tmp_path / "spd" / "kernels.json"

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", os.sep + "home-of-nobody")
    assert default_file() == Path("/home-of-nobody/.cache/spd/kernels.json")


def test_a_remembered_tile_is_taken(tmp_path: Path) -> None:
    """Without measuring; what is not remembered gets the default where measuring is off."""
    product, memory = made(2, 64, 30, 40), Memory(tmp_path / "kernels.json")
    tuner = Tuner(memory, gpu="H100", measure=False)
    known, unknown = product.weight.problem(128), product.weight.problem(512)
    memory.keep(BestTile(place=tuner.place, problem=known.name, tile=TILE, seconds=1e-6))
    x_KT = activations(40, 128)

    assert tuner.tile_for(known, x_KT, product.weight, None) == TILE
    assert tuner.tile_for(unknown, x_KT, product.weight, None) == default_tile(unknown)


@pytest.mark.parametrize(("sparse_s", "wins"), [(1e-6, True), (3e-6, False), (None, False)])
def test_the_faster_way_is_taken(tmp_path: Path, sparse_s: float | None, wins: bool) -> None:
    """2:4 tensor cores where they were faster; never where they failed."""
    memory = Memory(tmp_path / "kernels.json")
    chooser = Chooser(memory, gpu="H100")
    memory.keep(
        TwoFour(place=chooser.place, product="fp16 32x64 8 tokens", dense_s=2e-6, sparse_s=sparse_s)
    )
    x_TK, weight_NK = torch.zeros(8, 64).half(), torch.zeros(32, 64).half()

    assert chooser.wins(x_TK, weight_NK, weight_NK, torch.zeros(32).half()) is wins


@pytest.mark.parametrize(
    ("shape", "number", "takes"),
    [
        ((768, 3072), "fp16", True),
        ((32, 64), "bf16", True),
        ((768, 768), "fp32", False),
        ((2, 768), "fp16", False),
        ((768, 96), "fp16", False),
    ],
)
def test_which_matrices_2_4_takes(shape: tuple[int, int], number: str, takes: bool) -> None:
    """Outputs in 32s, inputs in 64s, in fp16 and bf16."""
    assert takes_two_four(shape, number) is takes
