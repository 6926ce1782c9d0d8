"""How a torch artefact's matrices are run is decided by pattern and shape, with a reason."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.classifier_weights import read_weights
from exporters.torch.select_lowering import TorchChoice, choose_torch_lowerings, relative_rate
from spd_deploy.domain.number_types import FloatType
from spd_deploy.domain.patterns import parse_pattern
from tests.tiny import tiny_checkpoint


def chosen(
    folder: Path, spelled: str | None, sparsity: float | None, number: FloatType, **sizes: Any
) -> set[tuple[str, str, str]]:
    """Each distinct choice: kind, lowering, reason."""
    pattern = None if spelled is None else parse_pattern(spelled, sparsity)
    checkpoint = tiny_checkpoint(folder / "c", pattern=pattern, layers=1, **sizes)
    found: list[TorchChoice] = list(
        choose_torch_lowerings(checkpoint, read_weights(checkpoint), number).values()
    )
    return {(one.kind, one.choice.lowering.name, one.choice.reason) for one in found}


@pytest.mark.parametrize(
    ("spelled", "sparsity", "number", "kind", "fact"),
    [
        (None, None, "fp16", "dense", "is not sparse"),
        ("unstructured", 0.9, "fp16", "dense", "do not skip single zeros"),
        ("2:4", None, "fp16", "2:4", "measured to be faster"),
        ("2:4", None, "fp32", "dense", "fp16 and bf16, not fp32"),
        ("1:4", None, "fp16", "dense", "1:4 has no kernel"),
        ("block:64x1", 0.75, "fp16", "blocks", "64 outputs reads only 25%"),
        ("block:8x1", 0.75, "fp16", "dense", "use too little of each input"),
        ("block:16x1", 0.9, "bf16", "blocks", "16 outputs reads only"),
        ("structured", 0.5, "fp16", "dense", "heads are left"),
    ],
)
def test_the_pattern_decides(
    tmp_path: Path,
    spelled: str | None,
    sparsity: float | None,
    number: FloatType,
    kind: str,
    fact: str,
) -> None:
    """Each pattern gets its kernel, with the reason."""
    found = chosen(tmp_path, spelled, sparsity, number)

    assert {one for one, _, _ in found} == {kind}
    assert any(fact in reason for _, _, reason in found)


def test_2_4_needs_whole_tiles(tmp_path: Path) -> None:
    """Matrices that PyTorch's kernel does not take are dense, and say so."""
    found = chosen(tmp_path, "2:4", None, "fp16", hidden=48, heads=4)

    assert {kind for kind, _, _ in found} == {"dense"}
    assert all("outputs in 32s and inputs in 64s" in reason for _, _, reason in found)


@given(st.integers(1, 256), st.sampled_from(["fp16", "bf16", "fp32"]))
def test_a_rate_is_a_share(rows: int, number: FloatType) -> None:
    """No group multiplies faster than a dense product."""
    assert 0 < relative_rate(rows, number) <= 1


@pytest.mark.parametrize("number", ["fp16", "bf16", "fp32"])
def test_taller_blocks_are_not_slower(number: FloatType) -> None:
    """Each input that is read serves more outputs."""
    rates = [relative_rate(rows, number) for rows in (8, 16, 32, 64, 128)]

    assert rates == sorted(rates)
