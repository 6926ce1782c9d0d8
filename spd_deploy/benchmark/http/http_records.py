"""Values of the HTTP part of a report: settings, and what became of each load, all frozen.

**Latency** is the time from when a request was due to the last byte of its answer, as the client
sees it. In the single-stream and the offline scenario a request is due when it is sent; in the
server scenario the schedule says when, so that a request that waits for a slow server counts whole.
Tokenising, JSON, HTTP and the network are in it.
"""

import math
from dataclasses import dataclass
from typing import Literal

from spd_deploy.benchmark.http.load_spec import LoadOutcome
from spd_deploy.domain.errors import BadReport, BadSetting
from spd_deploy.domain.shapes import Shape

# The scenarios of MLPerf Inference, by its names.
Scenario = Literal["single stream", "server", "offline"]
LATEST_SHARE = 0.1
LATEST_S = 0.001


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpSettings:
    """How the arms are measured over HTTP.

    Attributes:
        rates: of the server scenario, in requests a second.
        latency_bound_s: the search finds the highest rate whose p99 is within it.
        price_per_hour: of the machine; None where costs are not asked for.
        own_servers: whether the servers were started for this run, anew in each round.
    """

    rates: tuple[float, ...] = ()
    latency_bound_s: float = 0.1
    price_per_hour: float | None = None
    own_servers: bool = True

    def __post_init__(self) -> None:
        """Rates, bound and price are positive and finite."""
        for what, value in (
            *(("--rates", rate) for rate in self.rates),
            ("--latency-bound", self.latency_bound_s),
            ("--price-per-hour", self.price_per_hour),
        ):
            if value is not None and not 0 < value < math.inf:
                raise BadSetting(f"{what} must be above zero", got=value, fix="give such a number")

    @property
    def latest_s(self) -> float:
        """How late the generator may be, at p99, for a load to be judged by the bound."""
        return max(LATEST_S, LATEST_SHARE * self.latency_bound_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpLoad:
    """One load on one arm in one round.

    Attributes:
        shape: of the requests of a single stream; None for texts of all lengths.
        rate: of the server scenario: requests a second.
        searched: whether the search chose the rate.
        bare_s: seconds of the bare engine's runs on the same texts, next to the load. Of offline
            loads a run is a whole request.
        bare_rows: texts in all these runs together.
    """

    arm: str
    scenario: Scenario
    round: int
    outcome: LoadOutcome
    shape: Shape | None = None
    rate: float | None = None
    searched: bool = False
    bare_s: tuple[float, ...] = ()
    bare_rows: int = 0

    @property
    def rows_per_s(self) -> float:
        """Texts that were answered in a second."""
        return self.outcome.rows / max(self.outcome.elapsed_s, 1e-9)

    @property
    def bare_rows_per_s(self) -> float:
        """Texts that the bare engine ran in a second."""
        return self.bare_rows / max(sum(self.bare_s), 1e-9)


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpPart:
    """All loads of a run.

    Attributes:
        texts_per_request: of the offline scenario.
        in_flight: requests that are in flight in the offline scenario.
    """

    settings: HttpSettings
    texts_per_request: int
    in_flight: int
    loads: tuple[HttpLoad, ...]

    def __post_init__(self) -> None:
        """There is one load at least."""
        if not self.loads:
            raise BadReport("the report's HTTP part is empty", fix="measure again with: spd bench")

    def of(self, arm: str, scenario: Scenario) -> tuple[HttpLoad, ...]:
        """The loads of an arm in a scenario, by round."""
        found = [one for one in self.loads if (one.arm, one.scenario) == (arm, scenario)]
        return tuple(sorted(found, key=lambda one: one.round))
