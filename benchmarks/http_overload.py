"""What a server does at three times its capacity: an open loop of requests, and probes beside it.

    python -m benchmarks.http_overload ARTEFACT --seconds 60
    python -m benchmarks.http_overload ARTEFACT --output overload.json --times 3

The server is a process of its own. Its capacity is measured first, by clients that wait for their
answers. Requests then arrive at random (Poisson), at ``--times`` that rate, whether the earlier
ones are answered or not. The latency of a request counts from when it was to be sent, so that a
generator that is late does not flatter the server; how late it was is told too.
"""

import argparse
import asyncio
import json
import random
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from spd_deploy.domain.files import write_text

_CLIENTS, _CAPACITY_S, _PROBE_EVERY_S = 32, 5.0, 0.1
_TEXT = "the film was not good but the story is never dull "


@dataclass(slots=True)
class Outcome:
    """Seconds of each request by its status, of each probe, and how late requests were sent."""

    by_status: dict[str, list[float]] = field(default_factory=dict)
    probes_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)


async def exchange(port: int, request: bytes) -> str:
    """The status of one request over a connection of its own; the error where there is none."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer.split(b" ", 2)[1].decode() if answer else "closed"
    except OSError as err:
        return type(err).__name__


async def capacity_of(port: int, ask: bytes) -> float:
    """Requests a second of clients that wait for their answers."""
    give_up_at, done = time.perf_counter() + _CAPACITY_S, 0

    async def client() -> None:
        nonlocal done
        while time.perf_counter() < give_up_at:
            status = await exchange(port, ask)
            done += status == "200"

    await asyncio.gather(*(client() for _ in range(_CLIENTS)))
    return done / _CAPACITY_S


async def overload(
    port: int, ask: bytes, server: psutil.Process, *, rate: float, seconds: float
) -> Outcome:
    """Send requests at ``rate`` for so many seconds, and wait for the last answer."""
    outcome, tasks = Outcome(), set()
    start = time.perf_counter()

    async def one(due: float) -> None:
        outcome.late_s.append(time.perf_counter() - due)
        status = await exchange(port, ask)
        outcome.by_status.setdefault(status, []).append(time.perf_counter() - due)

    async def probe() -> None:
        while True:
            begun = time.perf_counter()
            await exchange(port, get("/readyz"))
            outcome.probes_s.append(time.perf_counter() - begun)
            outcome.memory.append(server.memory_info().rss)
            outcome.descriptors.append(server.num_fds())
            await asyncio.sleep(_PROBE_EVERY_S)

    probing = asyncio.create_task(probe())
    due = start
    while (due := due + random.expovariate(rate)) < start + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(one(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    probing.cancel()
    return outcome


def get(path: str) -> bytes:
    """A probe's request."""
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


def post(text: str) -> bytes:
    """A request for the answer to one text."""
    body = json.dumps({"inputs": [{"text": text}]})
    return (
        "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def summary(values: Sequence[float]) -> dict[str, float]:
    """Count, and milliseconds of the median, the 99th percentile and the longest."""
    ordered = sorted(values) or [0.0]
    at_99 = ordered[int(0.99 * (len(ordered) - 1))]
    named = {"p50_ms": statistics.median(ordered), "p99_ms": at_99, "max_ms": ordered[-1]}
    return {"count": len(values), **{name: round(1e3 * s, 1) for name, s in named.items()}}


def report_of(outcome: Outcome, *, capacity: float, rate: float) -> dict[str, object]:
    """What was found, in plain numbers."""
    return {
        "capacity_per_s": round(capacity, 1),
        "rate_per_s": round(rate, 1),
        "statuses": Counter({k: len(v) for k, v in outcome.by_status.items()}),
        "latency": {status: summary(v) for status, v in sorted(outcome.by_status.items())},
        "probes": summary(outcome.probes_s),
        "generator_late": summary(outcome.late_s),
        "memory_mb": [round(m / 1e6) for m in (outcome.memory[0], max(outcome.memory))],
        "descriptors": [outcome.descriptors[0], max(outcome.descriptors)],
    }


async def measure(port: int, server: psutil.Process, options: argparse.Namespace) -> Outcome:
    """Wait until the server is ready, find its capacity, and overload it."""
    while await exchange(port, get("/readyz")) != "200":
        await asyncio.sleep(0.1)
    ask = post(_TEXT * options.repeat)
    options.capacity = await capacity_of(port, ask)
    options.rate = options.times * options.capacity
    return await overload(port, ask, server, rate=options.rate, seconds=options.seconds)


def main() -> None:
    """Start the server, measure, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("artefact", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=float, default=3.0, help="rate, in capacities")
    parser.add_argument("--repeat", type=int, default=3, help="sentences of eleven words a text")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "spd_deploy", "serve", str(options.artefact)]
    with subprocess.Popen([*command, "--port", str(port)]) as server:
        try:
            outcome = asyncio.run(measure(port, psutil.Process(server.pid), options))
        finally:
            with suppress(ProcessLookupError):
                server.terminate()
    report = report_of(outcome, capacity=options.capacity, rate=options.rate)
    text = json.dumps(report, indent=2)
    print(text)
    if options.output is not None:
        write_text(options.output, text + "\n")


if __name__ == "__main__":
    main()
