"""Ray Serve with one replica and with two, beside ``spd serve``: answers a second, in turns.

    python -m benchmarks.ray_serve --model base
    python -m benchmarks.ray_serve ARTEFACT --tokens 32

All three servers run from the beginning to the end, and take turns: a server that is not asked
takes no processor. Each model has one thread. In a turn some connections ask again and again; a
second number is the median time of an answer where one connection asks alone.

On one machine the replicas share its cores with Ray's proxy and with the clients. Two replicas need
two free cores; on a machine of two, what the second one adds is what the others leave it.
"""

import argparse
import logging
import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np

from benchmarks.http_latency import Asker, durations
from benchmarks.shapes import artefact_of
from spd_deploy.benchmark.http.generator import PATH, body_of
from spd_deploy.benchmark.http.load_spec import SampleRequest
from spd_deploy.benchmark.http.served import serving
from spd_deploy.benchmark.http.wire import address_of, post
from spd_deploy.benchmark.http.workload import row_of
from spd_deploy.cli.output.console import show_table
from spd_deploy.domain.artefact import open_artefact
from spd_deploy.domain.patterns import Block

_PATTERN = Block(rows=128, columns=1, sparsity=0.9)
_REPLICAS = (1, 2)
_WARM_UP_S = 2.0


def main() -> None:
    """Start the three, measure them in turns, and print a table."""
    options = parsed()
    with ExitStack() as opened:
        folder = options.artefact or opened.enter_context(random_artefact(options.model))
        tokenizer, task = open_artefact(folder).tokenizer(), open_artefact(folder).task
        random = np.random.default_rng(0)
        row = row_of(tokenizer, options.tokens, pair=task.has_pair, random=random)
        body = body_of(SampleRequest(inputs=(row.texts,), expected=()))
        server = opened.enter_context(serving(folder, ["--threads", "1"]))
        urls = {"spd serve": server.url, **opened.enter_context(on_ray(folder))}
        requests = {name: (url, post(address_of(url), PATH, body)) for name, url in urls.items()}
        rates: dict[str, list[float]] = {name: [] for name in urls}
        alone: dict[str, list[float]] = {name: [] for name in urls}
        for number in range(options.rounds + 1):
            for name, (url, request) in requests.items():
                seconds = options.seconds if number else _WARM_UP_S
                rate = rate_of(url, request, options.connections, seconds)
                waited = alone_s(url, request, seconds / 4)
                if number:
                    rates[name].append(rate)
                    alone[name].append(waited)
    show(options, folder.name, rates, alone)


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artefact", nargs="?", type=Path, help="default: random weights")
    parser.add_argument("--model", default="base", help="sizes of the random weights")
    parser.add_argument("--tokens", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--connections", type=int, default=16, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=8.0, help="default: %(default)s")
    return parser.parse_args()


@contextmanager
def random_artefact(model: str) -> Iterator[Path]:
    """An artefact with random weights, which is gone afterwards."""
    with tempfile.TemporaryDirectory() as scratch:
        yield artefact_of(Path(scratch), model, model, _PATTERN).folder


@contextmanager
def on_ray(folder: Path) -> Iterator[dict[str, str]]:
    """The URL of a deployment with each number of replicas, on a Ray of this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray import serve

    from spd_deploy.scale.serve import app

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # A core for each replica in Ray's books; those that are not asked take none.
    ray.init(
        address="local",
        num_cpus=sum(_REPLICAS),
        include_dashboard=False,
        object_store_memory=200_000_000,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        serve.start(
            http_options={"port": port, "location": "HeadOnly"},
            logging_config={"enable_access_log": False},
        )
        urls = {}
        for count in _REPLICAS:
            name = f"ray-{count}"
            arguments = {"artefact": str(folder), "min_replicas": count, "max_replicas": count}
            serve.run(app(arguments), name=name, route_prefix=f"/{name}")
            urls[f"Ray Serve, replicas: {count}"] = f"http://127.0.0.1:{port}/{name}"
        yield urls
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


def rate_of(url: str, request: bytes, connections: int, seconds: float) -> float:
    """Answers a second, where each of some connections asks as soon as it has its answer."""
    counts = [0] * connections
    end = time.perf_counter() + seconds

    def ask_on(number: int) -> None:
        with closing(Asker(address_of(url), request)) as asker:
            while time.perf_counter() < end:
                asker.ask()
                counts[number] += 1

    threads = [threading.Thread(target=ask_on, args=(number,)) for number in range(connections)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def alone_s(url: str, request: bytes, seconds: float) -> float:
    """The median seconds of an answer, where nobody else asks."""
    with closing(Asker(address_of(url), request)) as asker:
        return statistics.median(durations(asker.ask, seconds))


def show(
    options: argparse.Namespace,
    model: str,
    rates: dict[str, list[float]],
    alone: dict[str, list[float]],
) -> None:
    """A table for people."""
    base = rates["spd serve"]
    show_table(
        f"{model}, {options.tokens} tokens, 1 thread a model, {options.connections} connections; "
        f"medians of {options.rounds} turns on {os.cpu_count()} cores",
        ["", "answers/s", "of spd serve", "one connection"],
        [
            [
                name,
                f"{statistics.median(found):,.1f}",
                f"{statistics.median(a / b for a, b in zip(found, base, strict=True)):.2f}",
                f"{1e3 * statistics.median(alone[name]):.1f} ms",
            ]
            for name, found in rates.items()
        ],
    )


if __name__ == "__main__":
    main()
