"""The load generator: a process of its own that reads loads and writes outcomes, a line each.

    python -m spd_deploy.benchmark.http.generator

It is a single thread around ``select``, which wakes within tens of microseconds where ``epoll``
counts in milliseconds. Answers are kept, and checked when the load is over.
"""

import gc
import json
import select
import sys
from collections.abc import Iterator
from dataclasses import asdict
from time import perf_counter
from typing import Any

from spd_deploy.benchmark.http.check_answers import Sent, outcome_of
from spd_deploy.benchmark.http.connection import ClientConnection
from spd_deploy.benchmark.http.load_spec import LoadSpec, SampleRequest
from spd_deploy.benchmark.http.wire import address_of, post
from spd_deploy.domain.documents import value_of
from spd_deploy.domain.errors import BadSetting

PATH = "/v1/classify"
# ``select`` takes descriptors below 1024.
MOST_CONNECTIONS = 800
# Connections of an open loop that are there before its first request is due.
_READY = 16
_LONGEST_WAIT_S = 0.05


class LoadRun:
    """One load on its way: the connections, and the requests that were sent."""

    def __init__(self, spec: LoadSpec) -> None:
        """Connect.

        Raises:
            OSError: nobody listens there.
        """
        self._spec, self._address = spec, address_of(spec.url)
        self._bodies = [
            post(self._address, PATH, body_of(one), api_key=spec.api_key) for one in spec.requests
        ]
        self._free: list[ClientConnection] = []
        self._busy: dict[ClientConnection, Sent] = {}
        self.sent: list[Sent] = []
        self._free = [self._connected() for _ in range(spec.connections or _READY)]
        self._begun = perf_counter()

    def open_loop(self) -> None:
        """Send each request when it is due, whatever became of those before it."""
        held = -1
        for number, due_s in enumerate(self._spec.due_s):
            while (wait_s := due_s - self._now_s()) > 0:
                self._receive(min(wait_s, _LONGEST_WAIT_S))
            while not self._free and len(self._busy) >= MOST_CONNECTIONS:
                held = number
                self._receive(_LONGEST_WAIT_S)
            self._send(Sent(number, due_s, held=held == number))
            self._receive(0.0)
        self._finish()

    def closed_loop(self) -> None:
        """Send the next request on a connection as soon as it has its answer."""
        spec, number = self._spec, 0
        while number < spec.at_least or (number < spec.at_most and self._now_s() < spec.seconds):
            if len(self._busy) < spec.connections:
                self._send(Sent(number, self._now_s()))
                number += 1
            else:
                self._receive(_LONGEST_WAIT_S)
        self._finish()

    def close(self) -> None:
        """Hang up on all connections, busy ones too."""
        for connection in (*self._free, *self._busy):
            connection.close()

    def _now_s(self) -> float:
        """Seconds since the load began."""
        return perf_counter() - self._begun

    def _connected(self) -> ClientConnection:
        """A new connection, which waits for an answer until the time is over."""
        return ClientConnection(self._address, timeout_s=self._spec.timeout_s)

    def _send(self, one: Sent) -> None:
        """Send a request on a free connection or a new one."""
        self.sent.append(one)
        one.sent_s = self._now_s()
        try:
            connection = self._free.pop() if self._free else self._connected()
            connection.send(self._bodies[one.number % len(self._bodies)])
        except OSError as err:
            one.reason = f"could not be sent: {err}"
            return
        self._busy[connection] = one

    def _receive(self, wait_s: float) -> None:
        """Read what arrives, waiting for it so long at most."""
        readable, _, _ = select.select(self._busy, [], [], wait_s)
        for connection in readable:
            one = self._busy[connection]
            try:
                answer = connection.receive()
            except OSError as err:
                one.reason = f"no answer: {err}"
            else:
                if answer is None:
                    continue
                one.done_s, one.answer = self._now_s(), answer
            del self._busy[connection]
            if one.answer is None or one.answer.closes:
                connection.close()
            else:
                self._free.append(connection)
        self._give_up()

    def _give_up(self) -> None:
        """Hang up where the time for an answer is over."""
        too_old_s = self._now_s() - self._spec.timeout_s
        while self._busy:  # the oldest comes first
            connection, one = next(iter(self._busy.items()))
            if one.sent_s >= too_old_s:
                return
            one.reason = f"no answer within {self._spec.timeout_s:g} s"
            del self._busy[connection]
            connection.close()

    def _finish(self) -> None:
        """Wait for the answers that are still to come, until their time is over."""
        while self._busy:
            self._receive(_LONGEST_WAIT_S)


def run_load(spec: LoadSpec) -> list[Sent]:
    """Send the requests of a load, and wait for their answers.

    Raises:
        OSError: nobody listens there.
    """
    run = LoadRun(spec)
    try:
        (run.open_loop if spec.due_s else run.closed_loop)()
    finally:
        run.close()
    return run.sent


def body_of(request: SampleRequest) -> dict[str, Any]:
    """The JSON body of a request; it asks for logits, which differ where probabilities agree.

    The logits of golden texts are those of texts that are cut, also where the server reads windows.
    """
    names = ("text", "text_pair")
    inputs = [dict(zip(names, one, strict=False)) for one in request.inputs]
    cut = {"long_texts": "cut"} if request.golden else {}
    return {"inputs": inputs, "raw_scores": True, **cut}


def answers_to(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The outcome of each load, or the error that kept it from running."""
    for line in lines:
        spec = value_of(
            LoadSpec, json.loads(line), what="the load", error=BadSetting, fix="send it again"
        )
        try:
            sent = run_load(spec)
        except OSError as err:
            yield {"error": err.strerror or str(err)}
        else:
            yield asdict(outcome_of(spec, sent))


def main() -> None:
    """Run the loads on standard input until it ends."""
    gc.disable()  # a collection would make a request late; a load is small
    for answer in answers_to(iter(sys.stdin.readline, "")):
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        gc.collect()


if __name__ == "__main__":
    main()
