"""How long a short text waits beside 24 clients that send a megabyte each, again and again.

    python -m benchmarks.http_long_bodies ARTEFACT --seconds 10

The long bodies are of three kinds: one text, 32 texts, and one word after a megabyte of spaces. For
each kind the table has the latency of the short text, the stages of its slowest answer, and what
became of both. Server, long clients and short client are processes of their own.
"""

import argparse
import multiprocessing
import statistics
import threading
import time
from collections import Counter
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from spd_deploy.benchmark.http.connection import ClientConnection
from spd_deploy.benchmark.http.generator import PATH
from spd_deploy.benchmark.http.served import serving
from spd_deploy.benchmark.http.wire import HttpAnswer, address_of, post
from spd_deploy.cli.output.console import show_table

CLIENTS = 24
_TEXT = "the film was not good but the story is never dull "
_PAUSE_S, _TIMEOUT_S, _LONGEST_RETRY_S = 0.02, 120.0, 2.0
LONG = {
    "one text": [_TEXT * 20_000],
    "32 texts": [_TEXT * 600] * 32,
    "spaces": [" " * 999_000 + "x"],
}


class Client:
    """Asks one thing again and again, over a connection that is opened anew where it is closed."""

    def __init__(self, url: str, texts: list[str]) -> None:
        self._address = address_of(url)
        self._request = post(self._address, PATH, {"inputs": [{"text": text} for text in texts]})
        self._connection = ClientConnection(self._address, timeout_s=_TIMEOUT_S)

    def ask(self) -> HttpAnswer:
        """The answer; an empty one where the server hung up."""
        try:
            answer = self._connection.ask(self._request)
        except OSError:
            answer = HttpAnswer()
        if answer.closes or not answer.status:
            self._connection.close()
            self._connection = ClientConnection(self._address, timeout_s=_TIMEOUT_S)
        return answer


def ask_long(url: str, kind: str, stop: Event, found: Any) -> None:
    """Send long bodies from all clients until the end, and put the count of each status."""
    statuses: Counter[int] = Counter()

    def one() -> None:
        client = Client(url, LONG[kind])
        while not stop.is_set():
            answer = client.ask()
            statuses[answer.status] += 1
            if answer.status == 429:
                wait_s = float(answer.headers.get("retry-after", 1))
                time.sleep(min(wait_s, _LONGEST_RETRY_S))

    threads = [threading.Thread(target=one) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.put(dict(statuses))


def ask_short(url: str, seconds: float, found: Any) -> None:
    """Send the short text for so many seconds, and put status, seconds and stages of each."""
    client, end, answers = Client(url, [_TEXT]), time.perf_counter() + seconds, []
    while time.perf_counter() < end:
        start = time.perf_counter()
        answer = client.ask()
        answers.append((answer.status, time.perf_counter() - start, answer.stages_s))
        time.sleep(_PAUSE_S)
    found.put(answers)


def row_of(url: str, kind: str, seconds: float) -> list[str]:
    """A line of the table."""
    spawn = multiprocessing.get_context("spawn")
    stop, of_long, of_short = spawn.Event(), spawn.Queue(), spawn.Queue()
    long = spawn.Process(target=ask_long, args=(url, kind, stop, of_long))
    short = spawn.Process(target=ask_short, args=(url, seconds, of_short))
    long.start()
    short.start()
    answers = of_short.get(timeout=seconds + 2 * _TIMEOUT_S)
    stop.set()
    statuses = of_long.get(timeout=2 * _TIMEOUT_S)
    for one in (long, short):
        one.join()
    waits = sorted(s for _, s, _ in answers)
    _, _, stages = max(answers, key=lambda one: one[1])
    return [
        kind,
        *(f"{1e3 * s:.0f} ms" for s in (statistics.median(waits), waits[-1])),
        ", ".join(f"{name} {1e3 * s:.0f}" for name, s in stages.items()),
        spelled(Counter(status for status, _, _ in answers)),
        spelled(statuses),
    ]


def spelled(statuses: dict[int, int]) -> str:
    """Counts by status; status 0 is a connection that the server closed."""
    return ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))


def main() -> None:
    """Measure each kind, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("artefact", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with serving(options.artefact) as server:
        rows = [row_of(server.url, kind, options.seconds) for kind in LONG]
    show_table(
        f"A short text beside {CLIENTS} clients that send a megabyte each",
        ["they send", "p50", "longest", "stages of it, ms", "short", "long"],
        rows,
    )


if __name__ == "__main__":
    main()
