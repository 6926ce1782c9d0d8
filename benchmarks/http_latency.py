"""What HTTP adds to a model: one kept-alive connection to ``spd serve``, against the bare engine.

    python -m benchmarks.http_latency --output DIR              # MiniLM and BERT-base sizes
    python -m benchmarks.http_latency ARTEFACT --output DIR     # an artefact of one's own

The server is a process of its own. The bare engine is the same artefact opened in this process,
given the same text, tokenised beforehand: what ``spd bench`` times. The two take
turns for a moment each, so that other work on the machine meets both, and each turn gives a median.
The result is the median of the turns, and of the differences of neighbouring turns. A difference
holds all that lies between a client and the logits: the socket, HTTP, JSON, tokenising, the queue.

Two more rows split it. The bare engine runs in a tight loop, with its weights and threads still
warm; "engine after a pause" is the same engine with a pause before each run as long as the rest of
a request takes. "GET /livez" is a request without a model: the client, the socket and HTTP alone.

Without an artefact, random weights are drawn, pruned to blocks of 128x1 at 90 % and exported, as in
``benchmarks.shapes``.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks.shapes import artefact_of
from serve.open_model import open_served
from spd_deploy.benchmark.http.connection import ClientConnection
from spd_deploy.benchmark.http.generator import PATH, body_of
from spd_deploy.benchmark.http.load_spec import SampleRequest
from spd_deploy.benchmark.http.served import serving
from spd_deploy.benchmark.http.wire import Address, HttpAnswer, address_of, get, post
from spd_deploy.benchmark.http.workload import row_of
from spd_deploy.cli.output.console import show_table
from spd_deploy.domain.cores import default_threads
from spd_deploy.domain.errors import SpdError
from spd_deploy.domain.files import refuse_existing, write_text
from spd_deploy.domain.patterns import Block
from spd_deploy.machine.facts import this_machine

SIZES = ("minilm", "base")
PATTERN = Block(rows=128, columns=1, sparsity=0.9)
SCHEMA = 2
STAGES = ("tok", "queue", "run")
_WARM_UP_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """Medians of a moment of each, in seconds.

    Attributes:
        bare_s: the engine in a tight loop.
        paused_s: the engine with a pause before each run, which is not counted.
        probe_s: ``GET /livez`` over a connection of its own.
        http_s: ``POST /v1/classify``.
        requests: how many of those.
        stages_s: what the server says of the last of them.
    """

    bare_s: float
    paused_s: float
    probe_s: float
    http_s: float
    requests: int
    stages_s: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One artefact at one length."""

    model: str
    pattern: str
    tokens: int
    threads: int
    turns: list[Turn] = field(default_factory=list)

    @property
    def bare_s(self) -> float:
        """The engine's median."""
        return statistics.median(turn.bare_s for turn in self.turns)

    @property
    def paused_s(self) -> float:
        """The engine's median after a pause."""
        return statistics.median(turn.paused_s for turn in self.turns)

    @property
    def probe_s(self) -> float:
        """The median of a request without a model."""
        return statistics.median(turn.probe_s for turn in self.turns)

    @property
    def http_s(self) -> float:
        """The client's median."""
        return statistics.median(turn.http_s for turn in self.turns)

    @property
    def added_s(self) -> float:
        """What HTTP adds."""
        return statistics.median(turn.http_s - turn.bare_s for turn in self.turns)

    @property
    def ratio(self) -> float:
        """How many times as long HTTP takes."""
        return statistics.median(turn.http_s / turn.bare_s for turn in self.turns)

    def stage_s(self, name: str) -> float:
        """A stage of the server's own account."""
        return statistics.median(turn.stages_s[name] for turn in self.turns)


class Asker:
    """One kept-alive connection that asks one thing again and again."""

    def __init__(self, address: Address, request: bytes) -> None:
        self._connection, self._request = ClientConnection(address), request
        self.answer = HttpAnswer()

    def ask(self) -> None:
        """Send the request and read the whole answer, which is kept."""
        self.answer = self._connection.ask(self._request)
        if self.answer.status != 200:
            raise SystemExit(f"benchmarks.http_latency: the server refused: {self.answer.body!r}")

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def main() -> None:
    """Measure, print, write."""
    options = parsed()
    try:
        refuse_existing(options.output, overwrite=options.overwrite)
    except SpdError as err:
        raise SystemExit(f"benchmarks.http_latency: {err}") from err
    found = []
    for folder in folders(options.artefact):
        measured = measure(folder, options)
        found.append(measured)
        show(measured)
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores + 1:
        print(f"busy: {load:.1f} processes wanted {cores} cores; measure again when it is quiet")
    options.output.mkdir(parents=True, exist_ok=True)
    write_text(options.output / "http.json", json.dumps(report(found, options), indent=1) + "\n")
    print(options.output / "http.json")


def parsed() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artefact", nargs="?", type=Path, help="default: both random ones")
    parser.add_argument("--tokens", type=int, default=32, help="default: %(default)s")
    parser.add_argument(
        "--threads", type=int, default=default_threads(), help="default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=0.5, help="default: %(default)s")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier report")
    return parser.parse_args()


def folders(artefact: Path | None) -> Iterator[Path]:
    """The artefact, or random ones that are gone afterwards."""
    if artefact is not None:
        yield artefact
        return
    for size in SIZES:
        with tempfile.TemporaryDirectory() as scratch:
            yield artefact_of(Path(scratch), size, size, PATTERN).folder


def measure(folder: Path, options: argparse.Namespace) -> Measured:
    """Server and engine in turns."""
    served = open_served(folder, threads=options.threads)
    pair = served.takes == "pair"
    row = row_of(served.tokenizer, options.tokens, pair=pair, random=np.random.default_rng(0))
    batch = served.tokenizer.pad([row.tokens])
    body = body_of(SampleRequest(inputs=(row.texts,), expected=()))
    measured = Measured(
        model=folder.name,
        pattern=served.card.pattern,
        tokens=options.tokens,
        threads=options.threads,
    )
    with (
        served.session as session,
        serving(folder, ["--threads", str(options.threads)]) as server,
        closing(Asker(address_of(server.url), post(address_of(server.url), PATH, body))) as client,
        closing(Asker(address_of(server.url), get(address_of(server.url), "/livez"))) as probe,
    ):
        pause_s = 0.0
        for seconds in (_WARM_UP_S, *[options.seconds] * options.rounds):
            bare = durations(lambda: session.run(batch), seconds)
            http = durations(client.ask, seconds)
            stages_s = client.answer.stages_s
            paused = durations(lambda: session.run(batch), seconds, pause_s=pause_s)
            turn = Turn(
                bare_s=statistics.median(bare),
                paused_s=statistics.median(paused),
                probe_s=statistics.median(durations(probe.ask, seconds)),
                http_s=statistics.median(http),
                requests=len(http),
                stages_s=stages_s,
            )
            measured.turns.append(turn)
            pause_s = max(0.0, turn.http_s - stages_s["run"])
    del measured.turns[0]  # the warm-up
    return measured


def durations(work: Callable[[], object], seconds: float, *, pause_s: float = 0.0) -> list[float]:
    """How long each of the calls took that fit into so many seconds, with pauses between them."""
    found: list[float] = []
    end = time.perf_counter() + seconds
    while not found or time.perf_counter() < end:
        if pause_s:
            time.sleep(pause_s)
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return found


def show(measured: Measured) -> None:
    """A table for people."""
    turns = len(measured.turns)
    show_table(
        f"{measured.model}, {measured.pattern}, {measured.tokens} tokens, "
        f"{measured.threads} threads; one connection, medians of {turns} turns",
        [
            *("bare engine", "over HTTP", "added", "ratio"),
            *(f"of it {name}" for name in STAGES),
            *("engine after a pause", "GET /livez"),
        ],
        [
            [
                *(
                    f"{1e3 * s:.2f} ms"
                    for s in (measured.bare_s, measured.http_s, measured.added_s)
                ),
                f"{measured.ratio:.2f}",
                *(f"{1e3 * measured.stage_s(name):.2f} ms" for name in STAGES),
                *(f"{1e3 * s:.2f} ms" for s in (measured.paused_s, measured.probe_s)),
            ]
        ],
    )


def report(found: Sequence[Measured], options: argparse.Namespace) -> dict[str, object]:
    """All turns, with the machine and the settings."""
    return {
        "schema": SCHEMA,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "settings": {"rounds": options.rounds, "seconds": options.seconds},
        "machine": asdict(this_machine()),
        "load_average": os.getloadavg(),
        "measured": [
            asdict(one) | {"added_ms": round(1e3 * one.added_s, 3), "ratio": round(one.ratio, 3)}
            for one in found
        ],
    }


if __name__ == "__main__":
    main()
