"""The map as values and as JSON: gains, totals, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spd_deploy.benchmark.breakeven.map_records import BreakEvenMap, MapRow, read_map, text_from_map
from spd_deploy.benchmark.breakeven.map_summary import (
    advice_lines,
    breakeven_lines,
    machine_text,
    map_caveats,
    map_table,
)
from spd_deploy.domain.errors import BadReport
from tests.benchmark.breakeven.made_map import SQUARE, WIDE, cell, gain_of, made_map
from tests.benchmark.made import IDLE

Value = dict[str, Any]


def test_a_map_comes_back_as_it_went(tmp_path: Path) -> None:
    """Reading what was written gives an equal map, to the last bit of each time."""
    (tmp_path / "map.json").write_text(text_from_map(made_map()), encoding="utf-8")

    assert read_map(tmp_path / "map.json") == made_map()


def test_the_gain_of_a_layer_is_that_of_its_seconds() -> None:
    """All products of a layer, each as often as it has it: seconds are added, not gains."""
    found = made_map()
    row = MapRow(pattern="block:16x1", sparsity=0.5, precision="fp32", runtime="onnxruntime")
    slow = cell(WIDE, 8, 0.5, (0.25, 0.25))
    changed = replace(
        found,
        cells=tuple(
            slow if (c.shape, c.tokens, c.pattern, c.sparsity) == (WIDE.shape, 8, *key(row)) else c
            for c in found.cells
        ),
    )

    dense, sparse = 4 * 64 + 128, 4 * 64 / 0.5 + 128 / 0.25
    assert gain_of(changed, 8, row).ratio == pytest.approx(dense / sparse)
    assert gain_of(changed, 8, row, SQUARE).ratio == pytest.approx(0.5)
    assert gain_of(changed, 8, row, WIDE).ratio == pytest.approx(0.25)


def key(row: MapRow) -> tuple[str, float]:
    """Pattern and sparsity."""
    return row.pattern, row.sparsity


def test_a_gain_is_sure_where_rounds_agree() -> None:
    """One round that is faster and one that is slower leave the side of 1 open."""
    found = made_map()
    row = MapRow(pattern="block:16x1", sparsity=0.5, precision="fp32", runtime="onnxruntime")

    assert gain_of(found, 8, row, WIDE).sure
    assert not gain_of(found, 32, row, WIDE).sure
    assert str(gain_of(found, 32, row, WIDE)).startswith("~1.0")


def test_what_nothing_skips_gains_nothing() -> None:
    """Such a pattern has a gain of 1.0, not called measured, and a line says the reason."""
    found = made_map()
    row = MapRow(pattern="2:4", sparsity=0.5, precision="fp32", runtime="onnxruntime")
    gain = gain_of(found, 8, row)

    assert (str(gain), gain.measured) == ("1.0", False)
    assert list(breakeven_lines(found))[1] == (
        "2:4: nothing here skips its zeros (2:4 needs sparse tensor cores)"
    )


def test_a_pattern_pays_from_where_all_sparser_ones_do() -> None:
    """A line names, for each length, the least sparsity that surely beats everything dense."""
    assert next(breakeven_lines(made_map())) == (
        "block:16x1: faster than every dense form from 90% at 8, from 90% at 32 tokens"
    )


def test_the_table_is_on_one_scale() -> None:
    """Dense and sparse alike have the time of a layer, and its ratio to dense fp32."""
    table = map_table(made_map())

    assert table.columns == ("", "8 tokens", "x", "32 tokens", "x")
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["dense, onnxruntime, fp32"] == ("3.07 ms", "1.00x", "12.3 ms", "1.00x")
    assert rows["block:16x1 at 90%, onnxruntime, fp32"] == ("2.46 ms", "1.25x", "3.07 ms", "4.0x")
    assert rows["2:4 at 50%, onnxruntime, fp32"] == ("3.07 ms", "1.0x", "12.3 ms", "1.0x")
    assert len(rows) == len(table.rows) == 1 + 3


def test_the_answer_is_the_fewest_zeros_that_beat_everything_dense() -> None:
    """At 50 % the blocks lose, so one is to start at 90 %, with the command that trains it."""
    first, *rest = advice_lines(made_map())

    assert first == (
        "On this machine, start with block:16x1 at 90%, onnxruntime, fp32: 1.25 to 4.0 times as "
        "fast as dense, onnxruntime, fp32, and 1.25 to 4.0 times as fast as the fastest dense form "
        "(dense, onnxruntime, fp32)."
    )
    assert rest == ["next: spd train --pattern block:16x1 --sparsity 0.9 ..."]


def test_where_nothing_pays_the_answer_is_dense() -> None:
    """A dense form that beats every pattern at some length is the one to start with."""
    found = made_map()
    quick = tuple(
        replace(cell, precision="int8", dense_s=tuple(s / 10 for s in cell.dense_s))
        for cell in found.cells
    )

    (line,) = advice_lines(replace(found, cells=(*found.cells, *quick)))

    assert line == (
        "On this machine, start with dense, onnxruntime, int8 (10.0 times as fast as dense, "
        "onnxruntime, fp32): no pattern measured here is faster at every length."
    )


def test_a_busy_machine_is_part_of_the_answer() -> None:
    """What other work may have changed is to be measured again before it is relied on."""
    busy = replace(made_map(), conditions=replace(IDLE, others_cores=2.0))

    assert any("measure again before you rely" in line for line in advice_lines(busy))
    assert not any("measure again" in line for line in advice_lines(made_map()))


def two_runtimes() -> BreakEvenMap:
    """The made map, and the same cells once more in OpenVINO, twice as fast."""
    found = made_map()
    quick = [
        replace(
            cell,
            runtime="openvino",
            dense_s=tuple(s / 2 for s in cell.dense_s),
            sparse_s=tuple(s / 2 for s in cell.sparse_s),
        )
        for cell in found.cells
    ]
    runtimes = {**found.runtimes, "openvino": "2026.4"}
    return replace(found, cells=(*found.cells, *quick), runtimes=runtimes)


def test_all_runtimes_are_compared_with_one_dense_form() -> None:
    """OpenVINO's rows, twice as fast, have twice the ratio, its dense ones among them."""
    table = map_table(two_runtimes())
    rows = {row[0]: row[1:] for row in table.rows}

    assert "times as fast as dense, onnxruntime, fp32" in table.title
    assert "onnxruntime 1.24.0 and openvino 2026.4, fp32" in machine_text(two_runtimes())
    assert rows["dense, openvino, fp32"] == ("1.54 ms", "2.0x", "6.14 ms", "2.0x")
    assert rows["block:16x1 at 90%, openvino, fp32"] == ("1.23 ms", "2.5x", "1.54 ms", "8.0x")
    assert len(rows) == len(table.rows) == 2 * (1 + 3)


def test_the_answer_is_over_all_runtimes() -> None:
    """The faster runtime is named; against its own dense form the gain is as it was."""
    line = next(advice_lines(two_runtimes()))

    assert "start with block:16x1 at 90%, openvino, fp32: 2.5 to 8.0 times as fast" in line
    assert "1.25 to 4.0 times as fast as the fastest dense form (dense, openvino, fp32)" in line


def test_a_busy_machine_is_doubted() -> None:
    """Other work during the run is a caveat, as are gains whose rounds disagree."""
    found = made_map()
    busy = replace(found, conditions=replace(IDLE, others_cores=2.0))

    assert [line for line in map_caveats(found) if "cores busy" in line] == []
    assert any("other processes kept 2.0 of 4 cores busy" in line for line in map_caveats(busy))
    assert any(line.endswith("faster: 1 of 6 ratios") for line in map_caveats(found))


def put(new: object, *path: str | int) -> Callable[[Value], None]:
    """A change that puts ``new`` at ``path``."""

    def change(value: Any) -> None:
        for step in path[:-1]:
            value = value[step]
        value[path[-1]] = new

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put(1, "schema"), "schema"),
        (put({}, "runtimes"), "do not fit together"),
        (put("openvino", "cells", 0, "runtime"), "do not fit together"),
        (put("many", "settings", "threads"), "settings.threads"),
        (put(0.0, "cells", 0, "dense_s", 0), "not whole"),
        (put([1.0], "cells", 0, "sparse_s"), "not whole"),
        (put("", "cells", 4, "reason"), "not whole"),
        (put(1.0, "cells", 0, "sparsity"), "not whole"),
        (put(9, "cells", 0, "tokens"), "do not fit together"),
        (put([], "cells"), "do not fit together"),
        (put(0, "parts", 0, "count"), "without weights"),
    ],
)
def test_a_damaged_map_is_refused(
    tmp_path: Path, change: Callable[[Value], None], said: str
) -> None:
    """Another schema, a time that is none, a product that is missing: an error that says so."""
    value = json.loads(text_from_map(made_map()))
    change(value)
    (tmp_path / "map.json").write_text(json.dumps(value), encoding="utf-8")

    with pytest.raises(BadReport, match=said):
        read_map(tmp_path / "map.json")
