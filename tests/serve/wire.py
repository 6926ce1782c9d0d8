"""A server on a real socket, in a thread, and plain connections to it."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn

from serve.access import Access
from serve.allowed_hosts import AllowedHosts
from serve.app import create_app
from serve.connection_pool import ConnectionPool
from serve.forwarding import ProxySettings
from serve.open_model import ServedModel
from serve.request_record import Observer
from serve.server import bound_socket, config_of, lengthen_queues
from serve.settings import ServeSettings
from serve.state import ServerState
from serve.tls import ServerTls
from tests.serve.clients import series_of, wait_until_settled
from tests.serve.fakes import PATIENCE_S


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request; names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body's JSON value."""
        return json.loads(self.body)


class Wire:
    """The address of a running server."""

    def __init__(
        self, port: int, state: ServerState, server: uvicorn.Server, pool: ConnectionPool
    ) -> None:
        self.port, self.state, self.pool = port, state, pool
        self._server = server

    def connect(self) -> socket.socket:
        """A connection of one's own."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def sockets(self) -> list[socket.socket]:
        """The server's ends of the connections that are open."""
        transports = [one.transport for one in list(self._server.server_state.connections)]
        return [one.get_extra_info("socket") for one in transports if one is not None]

    def say(self, *parts: bytes) -> list[Answer]:
        """Send the parts in packets of their own, and read answers until the server hangs up.

        The last request should ask it to.
        """
        with self.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i, part in enumerate(parts):
                time.sleep(0.02 if i else 0)
                connection.sendall(part)
            return list(answers_in(b"".join(iter(lambda: connection.recv(65_536), b""))))

    def metric(self, name: str) -> float:
        """The sum of the series of ``/metrics`` with this name and at least these labels."""
        (page,) = self.say(request("GET", "/metrics"))
        return sum(series_of(page.body.decode(), name))


def request(method: str, path: str, *headers: str, body: bytes = b"") -> bytes:
    """A request that asks the server to close, with the headers that every client sends."""
    length = [f"Content-Length: {len(body)}", "Content-Type: application/json"] if body else []
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *length, *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answers_in(data: bytes) -> Iterator[Answer]:
    """The answers one after the other."""
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}
        length = int(headers.get("content-length", 0))
        yield Answer(int(first.split()[1]), headers, data[:length])
        data = data[length:]


class _Server(uvicorn.Server):
    """Leaves no connection open, also where a busy machine does not close all in its time."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, as ``spd serve`` does it."""
        await super().startup(sockets)
        lengthen_queues(sockets or ())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, then end what is left; its process would end instead."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


@contextlib.contextmanager
def listening(
    served: ServedModel,
    settings: ServeSettings | None = None,
    forwarding: ProxySettings | None = None,
    hosts: AllowedHosts | None = None,
    grpc_address: tuple[str, int] | None = None,
    access: Access | None = None,
    tls: ServerTls | None = None,
    observers: Sequence[Observer] = (),
) -> Iterator[Wire]:
    """A server of ``served`` on a free port."""
    state, pool = ServerState(), ConnectionPool(settings or ServeSettings())
    app = create_app(
        lambda: served,
        settings or ServeSettings(),
        state=state,
        forwarding=forwarding or ProxySettings(),
        hosts=hosts,
        grpc_address=grpc_address,
        access=access,
        tls=tls,
        observers=observers,
    )
    server = _Server(config_of(app, pool, tls))
    with bound_socket("127.0.0.1", 0) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        wait_until_settled(state)
        try:
            yield Wire(bound.getsockname()[1], state, server, pool)
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Return once it is so, such as once the server has noticed that its clients are gone."""
    give_up_at = time.perf_counter() + PATIENCE_S
    while not is_so():
        assert time.perf_counter() < give_up_at
        time.sleep(0.01)
