"""MLPerf's LoadGen beside our load generator: the same server, the same rate, in turns.

    pip install mlcommons-loadgen
    python -m benchmarks.http_loadgen ARTEFACT --rate 50

Both send single texts at random times and count latency from when a query was due. LoadGen's
queries go through a pool of Python threads, one connection each; ours through ``select``. What is
compared is p50 and p99. LoadGen knows no refused, failed or wrong answer: one ends the script.
"""

import argparse
import queue
import re
import tempfile
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.http_soak import load_of, workload_for
from spd_deploy.benchmark.http.connection import ClientConnection
from spd_deploy.benchmark.http.generator import PATH, body_of
from spd_deploy.benchmark.http.judge_load import late_s
from spd_deploy.benchmark.http.load import load_generator
from spd_deploy.benchmark.http.served import serving
from spd_deploy.benchmark.http.servers import facts_at
from spd_deploy.benchmark.http.wire import address_of, post
from spd_deploy.benchmark.http.workload import Workload
from spd_deploy.cli.output.console import show_table
from spd_deploy.domain.cores import default_threads

_CONNECTIONS = 32
_QUANTILE = re.compile(r"^(50|99)\.00 percentile latency \(ns\)\s*:\s*(\d+)", re.MULTILINE)


def main() -> None:
    """Both generators in turns, and a table."""
    options = parsed()
    loadgen = imported()
    rows = []
    with (
        serving(options.artefact, ["--threads", str(options.threads)]) as server,
        load_generator() as generator,
    ):
        work = workload_for(options.artefact, facts_at(server.url), options)
        for number in range(options.rounds):
            ours = generator.run(
                load_of(server.url, work, options.rate, options.seconds, seed(number))
            )
            waits = sorted(ours.latency_s)
            theirs = seen_by_loadgen(loadgen, server.url, work, options, number)
            rows.append(
                (
                    str(number + 1),
                    *(f"{1e3 * waits[int(q * len(waits))]:.2f}" for q in (0.5, 0.99)),
                    *(f"{1e3 * s:.2f}" for s in theirs),
                    f"{1e3 * late_s([ours]):.2f}",
                )
            )
    show_table(
        f"{options.artefact.name} at {options.rate:g}/s for {options.seconds:g} s, in ms",
        ("round", "ours p50", "ours p99", "LoadGen p50", "LoadGen p99", "ours late, p99"),
        rows,
    )


def parsed() -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artefact", type=Path)
    parser.add_argument("--rate", type=float, default=50.0, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=20.0, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=32, help="default: %(default)s")
    parser.add_argument(
        "--threads", type=int, default=default_threads(), help="default: %(default)s"
    )
    return parser.parse_args()


def imported() -> ModuleType:
    """LoadGen's module."""
    import importlib

    try:
        return importlib.import_module("mlperf_loadgen")
    except ImportError as err:
        raise SystemExit(
            "benchmarks.http_loadgen: LoadGen is not installed; pip install mlcommons-loadgen"
        ) from err


def seed(number: int) -> int:
    """The seed of a round's arrivals; LoadGen draws its own from the same number."""
    return 1000 + number


def seen_by_loadgen(
    loadgen: ModuleType, url: str, work: Workload, options: argparse.Namespace, number: int
) -> tuple[float, float]:
    """p50 and p99 in seconds, by LoadGen's server scenario."""
    waiting: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
    address = address_of(url)
    bodies = [post(address, PATH, body_of(one)) for one in work.mixed]

    def answer() -> None:
        """Ask the server for one query after another."""
        connection = ClientConnection(address)
        while (query := waiting.get()) is not None:
            identity, index = query
            found = connection.ask(bodies[index])
            if found.status != 200:
                raise SystemExit(f"benchmarks.http_loadgen: HTTP {found.status}")
            loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(identity, 0, 0)])
        connection.close()

    def issue(samples: list[Any]) -> None:
        """Hand queries that are due to the threads."""
        for one in samples:
            waiting.put((one.id, one.index))

    threads = [threading.Thread(target=answer, daemon=True) for _ in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.Server
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.server_target_qps = options.rate
    settings.server_target_latency_ns = 10**9
    settings.min_duration_ms = int(1e3 * options.seconds)
    settings.min_query_count = round(options.rate * options.seconds)
    settings.schedule_rng_seed = seed(number)
    sut = loadgen.ConstructSUT(issue, lambda: None)
    library = loadgen.ConstructQSL(len(bodies), len(bodies), lambda _: None, lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        output = loadgen.LogSettings()
        output.log_output.outdir = folder
        loadgen.StartTestWithLogSettings(sut, library, settings, output)
        text = (Path(folder) / "mlperf_log_summary.txt").read_text(encoding="utf-8")
    for _ in threads:
        waiting.put(None)
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(sut)
    found = {name: int(ns) / 1e9 for name, ns in _QUANTILE.findall(text)}
    return found["50"], found["99"]


if __name__ == "__main__":
    main()
