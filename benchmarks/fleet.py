"""From one core to a fleet: texts a second, machines and money, from the committed reports.

    python -m benchmarks.fleet --price 0.05 --rate 10000 --load 0.7

Reads no clock and measures nothing: the same reports give the same tables. The page
``docs/explanation/fleet.md`` holds the tables for the defaults, and a test compares them.
"""

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
REPORTS = {
    "BERT-base": RESULTS / "2026-11-28-epyc-2-cores/base/report.json",
    "MiniLM-L6": RESULTS / "2026-11-28-epyc-2-cores/minilm/report.json",
}
ARMS = {
    "dense (onnxruntime)": "dense, fp32",
    "dense-int8 (openvino:bf16)": "dense, int8 with bf16, OpenVINO",
    "structured-75 (onnxruntime)": "`structured` 75 %, fp32",
    "structured-75-int8 (openvino:bf16)": "`structured` 75 %, int8 with bf16, OpenVINO",
}
SHAPE = {"batch": 8, "seq": 128}
SECONDS_OF_HOUR = 3600
MILLION = 1_000_000
# A service and a job of millions, for which the second table says what they need.
RATES = (10, 100, 1_000, 10_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """What is assumed, not measured.

    Attributes:
        core_hour: dollars for one core in an hour.
        load: the share of its capacity at which a server is planned.
        node_cores: cores of a node.
    """

    core_hour: float = 0.05
    load: float = 0.7
    node_cores: int = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """What one measured arm gives on a core.

    Attributes:
        model: the sizes that were measured.
        arm: the form of the model.
        per_core: texts a second, in batches of eight with 128 tokens each.
        peak_bytes: the largest memory of the measured process.
    """

    model: str
    arm: str
    per_core: float
    peak_bytes: int

    def cost(self, prices: Prices) -> float:
        """Dollars for a million texts on cores that are always busy."""
        return MILLION / self.per_core / SECONDS_OF_HOUR * prices.core_hour

    def cores(self, rate: float, prices: Prices) -> int:
        """Whole cores for a rate of texts a second, at the planned load."""
        return -int(-rate // (self.per_core * prices.load))


def capacities() -> list[Capacity]:
    """Each arm of each report; texts a second by the median of the rounds' medians."""
    return [
        _capacity(model, report, arm)
        for model, file in REPORTS.items()
        for report in [json.loads(file.read_text())]
        for arm in ARMS
    ]


def _capacity(model: str, report: dict[str, Any], arm: str) -> Capacity:
    """One arm at :data:`SHAPE`."""
    seconds = statistics.median(
        statistics.median(series["seconds"])
        for series in report["series"]
        if series["arm"] == arm and series["shape"] == SHAPE
    )
    facts = next(facts for facts in report["arms"] if facts["name"] == arm)
    return Capacity(
        model=model,
        arm=ARMS[arm],
        per_core=SHAPE["batch"] / seconds / facts["runtime"]["threads"],
        peak_bytes=facts["memory"]["peak_bytes"],
    )


def tables(prices: Prices, rates: Sequence[float] = RATES) -> str:
    """Both tables, as the page has them."""
    found = capacities()
    texts = [
        (
            *(c.model, c.arm, f"{c.per_core:.1f}", f"{c.per_core * prices.node_cores:,.0f}"),
            *(f"{c.cost(prices):.2f} $", f"{c.peak_bytes / 1e6:,.0f} MB"),
        )
        for c in found
    ]
    cores = [(c.model, c.arm, *(f"{c.cores(rate, prices):,}" for rate in rates)) for c in found]
    return "\n".join(
        [
            *_table(
                (
                    *("model", "form", "texts/s, a core", f"texts/s, {prices.node_cores} cores"),
                    *("a million texts", "memory, a process"),
                ),
                texts,
            ),
            "",
            f"Cores at {prices.load:.0%} load, for texts a second:",
            "",
            *_table(("model", "form", *(f"{rate:,}" for rate in rates)), cores),
        ]
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """Lines of a table in Markdown."""
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Print the tables."""
    known = Prices()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--price", type=float, default=known.core_hour, help="$ for a core hour")
    parser.add_argument("--load", type=float, default=known.load, help="planned share of capacity")
    parser.add_argument("--cores", type=int, default=known.node_cores, help="cores of a node")
    parser.add_argument("--rate", type=float, action="append", help="texts a second; repeatable")
    given = parser.parse_args()
    if not (0 < given.load <= 1 and given.price >= 0 and given.cores >= 1):
        parser.error("--load is above 0 and at most 1, --price is not negative, --cores at least 1")
    if given.rate and min(given.rate) <= 0:
        parser.error("--rate is above 0")
    prices = Prices(core_hour=given.price, load=given.load, node_cores=given.cores)
    print(tables(prices, given.rate or RATES))


if __name__ == "__main__":
    main()
