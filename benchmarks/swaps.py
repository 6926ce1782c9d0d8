"""Swaps of a model under HTTP load: every request must be answered, with the scores of a version.

    python -m benchmarks.swaps ARTEFACT ARTEFACT --swaps 100 --clients 4

A server of a model repository is a process of its own. Its versions are the two artefacts in turn;
each is put beside the one that answers and loaded through the repository API, while clients on
kept-alive connections ask without a pause. An answer counts as lost unless it has status 200 and
is, to the last digit, that of one of the two artefacts. Latencies during swaps are told beside
those before them.
"""

import argparse
import contextlib
import http.client
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

_BODY = json.dumps({"inputs": [{"text": "a film that is never dull"}]})
_JSON = {"Content-Type": "application/json"}
_MODEL = "swapped"
_BEFORE_S = 5.0


@dataclass(slots=True)
class Asked:
    """What one client got: seconds of each answer, and the answers that are lost."""

    seconds: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def main() -> None:
    """Swap, and print the figures; exit status 1 where a request was lost."""
    options = _options().parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as stack,
    ):
        model = Path(folder) / _MODEL
        model.mkdir()
        put(options.artefacts[0], model, 1)
        port = stack.enter_context(server_of(Path(folder), options.threads))
        known = [answer_of(port)]
        swap(port, options.artefacts[1], model, 2)
        known.append(answer_of(port))
        quiet = load(port, options.clients, known, _BEFORE_S)
        asked, swap_s = load_while_swapping(port, options, model, known)
    print(figures("before", quiet))
    print(figures("during swaps", asked))
    print(f"{options.swaps} swaps, median {statistics.median(swap_s):.2f} s each")
    lost = [one for client in asked for one in client.lost]
    print(f"lost: {len(lost)} of {sum(len(client.seconds) for client in asked)}", *lost[:3])
    sys.exit(1 if lost else 0)


def load_while_swapping(
    port: int, options: argparse.Namespace, model: Path, known: Sequence[bytes]
) -> tuple[list[Asked], list[float]]:
    """Ask on all connections while versions are swapped; seconds of each swap."""
    stop = threading.Event()
    with ThreadPoolExecutor(options.clients) as pool:
        asking = [pool.submit(ask, port, known, stop) for _ in range(options.clients)]
        seconds = []
        for number in range(3, 3 + options.swaps):
            start = time.perf_counter()
            swap(port, options.artefacts[(number - 1) % 2], model, number)
            seconds.append(time.perf_counter() - start)
            shutil.rmtree(model / str(number - 1))
        stop.set()
        return [one.result() for one in asking], seconds


def load(port: int, clients: int, known: Sequence[bytes], seconds: float) -> list[Asked]:
    """Ask on all connections for a while."""
    stop = threading.Event()
    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask, port, known, stop) for _ in range(clients)]
        time.sleep(seconds)
        stop.set()
        return [one.result() for one in asking]


def ask(port: int, known: Sequence[bytes], stop: threading.Event) -> Asked:
    """Ask on one connection until told to stop."""
    found = Asked()
    with contextlib.closing(_connection(port)) as connection:
        while not stop.is_set():
            start = time.perf_counter()
            try:
                status, body = _answer(connection, "/v1/classify", _BODY)
            except OSError as err:
                found.lost.append(repr(err))
                connection.close()
                continue
            found.seconds.append(time.perf_counter() - start)
            if status != 200 or body not in known:
                found.lost.append(f"{status} {body[:100]!r}")
    return found


def figures(when: str, clients: Sequence[Asked]) -> str:
    """Requests and latencies in a line."""
    seconds = sorted(one for client in clients for one in client.seconds)
    p50, p99 = (1000 * seconds[int(share * (len(seconds) - 1))] for share in (0.5, 0.99))
    return (
        f"{when}: {len(seconds)} requests, p50 {p50:.2f} ms, p99 {p99:.2f} ms, "
        f"longest {1000 * seconds[-1]:.2f} ms"
    )


def put(artefact: Path, model: Path, number: int) -> None:
    """Make an artefact a version in one step."""
    draft = model / f".{number}"
    shutil.copytree(artefact, draft)
    draft.rename(model / str(number))


def swap(port: int, artefact: Path, model: Path, number: int) -> None:
    """Put a version beside the one that answers, and load it."""
    put(artefact, model, number)
    with contextlib.closing(_connection(port)) as connection:
        status, body = _answer(connection, f"/v2/repository/models/{_MODEL}/load", "{}")
    if status != 200:
        raise SystemExit(f"version {number} was not loaded: {body.decode()}")


def answer_of(port: int) -> bytes:
    """The body of an answer."""
    with contextlib.closing(_connection(port)) as connection:
        return _answer(connection, "/v1/classify", _BODY)[1]


@contextlib.contextmanager
def server_of(repository: Path, threads: int) -> Iterator[int]:
    """The port of a server of the repository."""
    line = [sys.executable, "-m", "spd_deploy", "serve", "--port", "0", "--model-control"]
    line += ["--threads", str(threads), "--model-repository", str(repository)]
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    )
    lines = iter(process.stdout or ())
    try:
        said = next(lines, "")
        if not said.startswith("ready on "):
            raise SystemExit(said)
        threading.Thread(target=list, args=(lines,), daemon=True).start()
        yield int(said.rpartition(":")[2])
    finally:
        process.terminate()
        process.wait()


def _connection(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=60)


def _answer(connection: http.client.HTTPConnection, path: str, body: str) -> tuple[int, bytes]:
    connection.request("POST", path, body, _JSON)
    answer = connection.getresponse()
    return answer.status, answer.read()


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("artefacts", nargs=2, type=Path, help="two artefacts, served in turn")
    parser.add_argument("--swaps", type=int, default=100, help="how many swaps; default 100")
    parser.add_argument("--clients", type=int, default=4, help="connections; default 4")
    parser.add_argument("--threads", type=int, default=1, help="of the runtime; default 1")
    return parser


if __name__ == "__main__":
    main()
