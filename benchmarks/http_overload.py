"""What a server does at three times its capacity: an open loop of requests, and probes beside it.

    python -m benchmarks.http_overload ARTEFACT --seconds 60
    python -m benchmarks.http_overload ARTEFACT --output overload.json --times 3 --threads 1

Server, load generator and prober are processes of their own. The capacity is measured first, by
clients that wait for their answers. Requests then arrive at random (Poisson), at ``--times`` that
rate, each over a connection of its own, whether the earlier ones are answered or not. The latency
of a request counts from when it was to be sent, so that a generator that is late does not flatter
the server; how late it was is shown too.

Three more numbers tell where the time goes. ``cpu_s`` has the seconds of each thread of the server:
the first is the event loop. ``listen_overflows`` counts connections that the kernel dropped since
the server did not accept them in time; a client tries again after 1, 3 and 7 s. ``machine`` has the
cores that server, generator and prober shared.
"""

import argparse
import gc
import json
import multiprocessing
import random
import selectors
import socket
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psutil

from spd_deploy.benchmark.http.served import serving
from spd_deploy.benchmark.http.wire import address_of
from spd_deploy.domain.files import write_text
from spd_deploy.machine.facts import this_machine

_CLIENTS, _CAPACITY_S, _PROBE_EVERY_S = 32, 5.0, 0.05
_LONGEST_WAIT_S, _PROBES = 0.05, ("/livez", "/readyz")
_GIVE_UP_S = 60.0
_TEXT = "the film was not good but the story is never dull "

# Seconds by status, or by what went wrong.
Latencies = dict[str, list[float]]


@dataclass(slots=True)
class Generator:
    """Requests over connections of their own, from one thread around ``epoll``."""

    port: int
    request: bytes
    latency_s: Latencies = field(default_factory=lambda: defaultdict(list))
    late_s: list[float] = field(default_factory=list)
    open: int = 0
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def send(self, due: float) -> None:
        """Begin a request that was due at ``due``."""
        connection = socket.socket()
        connection.setblocking(False)
        connection.connect_ex(("127.0.0.1", self.port))
        self.selector.register(connection, selectors.EVENT_WRITE, due)
        self.open += 1

    def receive(self, wait_s: float) -> int:
        """Go on with what is ready; returns how many requests ended."""
        before = self.open
        for key, events in self.selector.select(wait_s):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)  # noqa: S101 - only these are registered
            try:
                if events & selectors.EVENT_WRITE:
                    connection.send(self.request)
                    self.selector.modify(connection, selectors.EVENT_READ, key.data)
                    continue
                status = connection.recv(65_536)[9:12].decode() or "closed"
            except OSError as err:
                status = type(err).__name__
            self.latency_s[status].append(time.perf_counter() - key.data)
            self.selector.unregister(connection)
            connection.close()
            self.open -= 1
        return before - self.open

    def closed_loop(self, seconds: float) -> float:
        """Requests a second of clients that wait for their answers."""
        end, done = time.perf_counter() + seconds, 0
        for _ in range(_CLIENTS):
            self.send(time.perf_counter())
        while time.perf_counter() < end:
            ended = self.receive(_LONGEST_WAIT_S)
            done += ended
            for _ in range(ended):
                self.send(time.perf_counter())
        return done / seconds

    def open_loop(self, rate: float, seconds: float) -> None:
        """Requests at random times, and then their answers, for a minute at most."""
        gc.disable()
        due = time.perf_counter()
        end = due + seconds
        while (due := due + random.expovariate(rate)) < end:
            while (wait_s := due - time.perf_counter()) > 0:
                self.receive(min(wait_s, _LONGEST_WAIT_S))
            self.late_s.append(time.perf_counter() - due)
            self.send(due)
            self.receive(0)
        while self.open and time.perf_counter() < end + _GIVE_UP_S:
            self.receive(_LONGEST_WAIT_S)


def find_capacity(port: int, request: bytes, found: "multiprocessing.Queue[float]") -> None:
    """Measure the capacity in this process."""
    found.put(Generator(port, request).closed_loop(_CAPACITY_S))


def overload(
    port: int, request: bytes, rate: float, seconds: float, found: "multiprocessing.Queue[Any]"
) -> None:
    """Send the requests from this process."""
    generator = Generator(port, request)
    generator.open_loop(rate, seconds)
    found.put((dict(generator.latency_s), generator.late_s, generator.open))


def probe(port: int, stop: Event, found: "multiprocessing.Queue[Latencies]") -> None:
    """Ask the probes in turn, each over a connection of its own as a kubelet does."""
    latency_s: Latencies = defaultdict(list)
    while not stop.is_set():
        for path in _PROBES:
            start = time.perf_counter()
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=_GIVE_UP_S) as one:
                    one.sendall(get(path))
                    answer = b"".join(iter(lambda one=one: one.recv(65_536), b""))  # type: ignore[misc]
                key = f"{path} {answer[9:12].decode()}"
            except OSError as err:
                key = f"{path} {type(err).__name__}"
            latency_s[key].append(time.perf_counter() - start)
            time.sleep(_PROBE_EVERY_S)
    found.put(dict(latency_s))


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


def summaries(latency_s: Latencies) -> dict[str, dict[str, float]]:
    """The summary of each kind."""
    return {kind: summary(values) for kind, values in sorted(latency_s.items())}


def listen_overflows() -> int | None:
    """Connections that this machine's kernel has dropped so far; None where it does not say."""
    file = Path("/proc/net/netstat")
    if not file.exists():
        return None
    names, values = (line.split() for line in file.read_text().splitlines()[:2])
    return int(dict(zip(names, values, strict=True))["ListenOverflows"])


def cpu_s(server: psutil.Process) -> dict[int, float]:
    """Seconds of each thread."""
    return {one.id: one.user_time + one.system_time for one in server.threads()}


def measured(options: argparse.Namespace, port: int, probes_at: int, pid: int) -> dict[str, Any]:
    """Find the capacity, overload the server, and report."""
    spawn = multiprocessing.get_context("spawn")
    server, request = psutil.Process(pid), post(_TEXT * options.repeat)
    capacity, loaded, probed = spawn.Queue(), spawn.Queue(), spawn.Queue()
    run_to_end(spawn.Process(target=find_capacity, args=(port, request, capacity)))
    per_s = capacity.get(timeout=_GIVE_UP_S)
    rate, stop = options.times * per_s, spawn.Event()
    prober = spawn.Process(target=probe, args=(probes_at, stop, probed))
    load = spawn.Process(target=overload, args=(port, request, rate, options.seconds, loaded))
    cpu, dropped, memory = cpu_s(server), listen_overflows(), [server.memory_info().rss]
    prober.start()
    load.start()
    while loaded.empty() and load.is_alive():
        memory.append(server.memory_info().rss)
        time.sleep(0.2)
    latency_s, late_s, unanswered = loaded.get(timeout=_GIVE_UP_S)
    stop.set()
    probes_s = probed.get(timeout=2 * _GIVE_UP_S)
    for one in (prober, load):
        one.join()
    used = {str(k): round(v - cpu.get(k, 0.0), 1) for k, v in sorted(cpu_s(server).items())}
    now = listen_overflows()
    return {
        "capacity_per_s": round(per_s, 1),
        "rate_per_s": round(rate, 1),
        "latency": summaries(latency_s),
        "unanswered": unanswered,
        "probes": summaries(probes_s),
        "generator_late": summary(late_s),
        "cpu_s": {thread: s for thread, s in used.items() if s >= 0.1},
        "listen_overflows": None if now is None or dropped is None else now - dropped,
        "memory_mb": [round(m / 1e6) for m in (memory[0], max(memory))],
        "machine": asdict(this_machine()),
    }


def run_to_end(process: Any) -> None:
    """Run a process; its queue is read afterwards, so it holds little."""
    process.start()
    process.join()
    if process.exitcode:
        sys.exit("benchmarks.http_overload: the load generator failed")


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def main() -> None:
    """Start the server, measure, print and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("artefact", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=float, default=3.0, help="rate, in capacities")
    parser.add_argument("--repeat", type=int, default=3, help="sentences of eleven words a text")
    parser.add_argument("--threads", type=int, help="of the server; default: its own")
    parser.add_argument(
        "--management-port", action="store_true", help="ask the probes on a port of their own"
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    words = [] if options.threads is None else ["--threads", str(options.threads)]
    management = free_port() if options.management_port else None
    if management is not None:
        words += ["--management-port", str(management)]
    with serving(options.artefact, words) as server:
        port = address_of(server.url).port
        report = measured(options, port, management or port, server.pid)
    text = json.dumps(report, indent=2)
    print(text)
    if options.output is not None:
        write_text(options.output, text + "\n")


if __name__ == "__main__":
    main()
