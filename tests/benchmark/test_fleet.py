"""The arithmetic from a core to a fleet follows from the committed reports."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fleet import REPORTS, SHAPE, Capacity, Prices, capacities, tables

PAGE = Path(__file__).parents[2] / "docs/explanation/fleet.md"


def test_the_page_holds_what_the_script_prints() -> None:
    """The page's tables are those of the committed reports at the assumed prices."""
    between = PAGE.read_text().split("<!-- fleet -->")[1].split("<!-- /fleet -->")[0]

    assert between.strip() == tables(Prices())


@pytest.mark.parametrize("model", REPORTS)
def test_a_core_gives_a_share_of_the_measured_machine(model: str) -> None:
    """The cores of the report together run a batch of dense fp32 in about its median time."""
    report = json.loads(REPORTS[model].read_text())
    dense = next(c for c in capacities() if c.model == model and c.arm == "dense, fp32")
    samples = sorted(
        second
        for series in report["series"]
        if series["arm"] == report["baseline"] and series["shape"] == SHAPE
        for second in series["seconds"]
    )
    batch_s = SHAPE["batch"] / (dense.per_core * report["settings"]["threads"])

    assert samples[0] < batch_s < samples[-1]
    assert batch_s == pytest.approx(samples[len(samples) // 2], rel=0.1)


@given(per_core=st.floats(0.1, 1e4), rate=st.floats(0.1, 1e6), load=st.floats(0.1, 1))
def test_the_cores_are_the_fewest_that_carry_the_rate(
    per_core: float, rate: float, load: float
) -> None:
    """So many cores carry the rate at the planned load, and one fewer does not."""
    prices = Prices(load=load)
    capacity = Capacity(model="m", arm="a", per_core=per_core, peak_bytes=1)
    cores = capacity.cores(rate, prices)

    assert cores * per_core * load >= rate * (1 - 1e-9)
    assert (cores - 1) * per_core * load < rate * (1 + 1e-9)


def test_a_million_texts_cost_their_core_hours() -> None:
    """A core that answers a million texts in an hour costs its hour's price for them."""
    capacity = Capacity(model="m", arm="a", per_core=1e6 / 3600, peak_bytes=1)

    assert math.isclose(capacity.cost(Prices(core_hour=0.25)), 0.25)
