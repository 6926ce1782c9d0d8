"""Runs the app in uvicorn: a line when it is ready, a drain after a signal, and exit status 0.

Plain uvicorn stops listening at the first SIGTERM, answers unfinished requests with a bare 500 and
exits with the signal's status. Here SIGTERM or Ctrl-C makes ``/readyz`` answer 503 and refuses new
work, and the sockets stay open for probes. The process exits with status 0 when the last request in
flight is answered, or when the drain timeout is over and the rest got 503. A second signal ends the
process at once. SIGHUP reads API keys and certificate again, and replaces the models whose files
have changed.

The limit of open files is raised to what the process may have. Where descriptors or memory run out
all the same, new connections wait in the kernel; it is tried again after a second, and logged once.
"""

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from serve.connection import Connection
from serve.connection_pool import ConnectionPool
from serve.exhausted import exhausted_by, raise_open_files
from serve.log_rarely import Rarely
from serve.settings import ServeSettings
from serve.state import Phase, ServerState
from serve.tls import ServerTls
from spd_deploy.domain.errors import Unavailable

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_RELOAD: signal.Signals | None = getattr(signal, "SIGHUP", None)  # Windows has none
_CANCEL_AFTER_S = 1
_BACKLOG = 2048
# asyncio goes on accepting so many times after it has failed for want of descriptors.
_ACCEPT_AT_ONCE = 16
_MANAGEMENT_CONNECTIONS = 32

_log = logging.getLogger(__name__)

Say = Callable[[str], None]


def bound_socket(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """A listening socket; bound first, so that a taken port is known before a model is opened.

    Raises:
        Unavailable: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as err:
        raise Unavailable(
            f"cannot listen on {host} port {port}",
            got=os.strerror(err.errno) if isinstance(err, OSError) and err.errno else err,
            fix=f"choose another {option}, or stop what listens there",
        ) from err


def url_of(listening: socket.socket, *, scheme: str = "http") -> str:
    """The URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def config_of(app: ASGIApp, pool: ConnectionPool, tls: ServerTls | None = None) -> uvicorn.Config:
    """Settings of uvicorn: the parser httptools, our connection, and no log of its own."""
    return uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", functools.partial(Connection, pool=pool)),
        loop="asyncio",  # the loop that is tested, also where the extra ray has brought uvloop
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=cast("int", pool.settings.keep_alive_timeout_s),
        timeout_graceful_shutdown=_CANCEL_AFTER_S,
        backlog=_ACCEPT_AT_ONCE,
        ssl_context_factory=None if tls is None else lambda *_: tls.context,
    )


def run(
    app: ASGIApp,
    state: ServerState,
    listening: socket.socket,
    *,
    settings: ServeSettings,
    say: Say,
    tls: ServerTls | None = None,
    management: socket.socket | None = None,
) -> None:
    """Serve until a signal, then drain.

    Args:
        app: what :func:`serve.app.create_app` made.
        state: the one that was given to it.
        listening: a bound socket, which is closed at the end.
        settings: the limits on connections, and the time to drain.
        say: gets a line when the server is ready, and one when it drains.
        tls: the certificate; without it the server speaks plain HTTP.
        management: a bound socket for probes and metrics, always in plain HTTP.

    Raises:
        SpdError: the model did not open.
    """
    pool = ConnectionPool(settings, max_open_files=raise_open_files())
    server = _Server(
        config_of(app, pool, tls),
        state,
        settings,
        say=say,
        url=url_of(listening, scheme="http" if tls is None else "https"),
        management=management,
    )
    server.run(sockets=[listening])
    if state.error is not None:
        raise state.error


def lengthen_queues(listening: Iterable[socket.socket]) -> None:
    """Let the kernel hold many new connections for sockets that uvicorn listens at.

    It made their queues as short as it accepts at once; a connection that finds the queue full is
    tried again by its client after a second.
    """
    for one in listening:
        one.listen(_BACKLOG)


def log_once(_: asyncio.AbstractEventLoop, context: dict[str, Any], *, rarely: Rarely) -> None:
    """Log an error of the event loop; where the machine has run out of something, once a minute."""
    error = context.get("exception")
    what = None if error is None else exhausted_by(error)
    if what is None:
        _log.error("%s", context.get("message"), exc_info=error)
    else:
        rarely.error(what, f"the process has no {what} left; connections wait until there is")


class _Server(uvicorn.Server):
    """A uvicorn server with our handling of signals and shutdown."""

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        settings: ServeSettings,
        *,
        say: Say,
        url: str,
        management: socket.socket | None,
    ) -> None:
        super().__init__(config)
        self._management = management
        self._state, self._say, self._url = state, say, url
        self._settings = settings
        self._give_up_at: float | None = None
        self._announced: Phase | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals; uvicorn would raise them again at the end."""
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        if _RELOAD is not None:
            before[_RELOAD] = signal.signal(_RELOAD, self.handle_reload)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal; exit at the second."""
        if self._give_up_at is not None:
            os._exit(128 + sig)
        self._give_up_at = time.perf_counter() + self._settings.drain_timeout_s
        self._state.drain()

    def handle_reload(self, sig: int, frame: FrameType | None) -> None:
        """Ask the app to read again what may change: keys, certificate, models."""
        self._state.ask_for_reload()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; the kernel's queue stays long, although few are accepted at once."""
        handler = functools.partial(log_once, rarely=Rarely(_log))
        asyncio.get_running_loop().set_exception_handler(handler)
        await super().startup(sockets)
        if self._management is not None and self.started:
            await self._listen_for_management(self._management)
        lengthen_queues(sockets or ())

    async def _listen_for_management(self, management: socket.socket) -> None:
        """Listen on the management port too, without TLS; uvicorn knows one way for all.

        Its connections are counted apart, so that clients keep no probe out.
        """
        pool = ConnectionPool(replace(self._settings, max_connections=_MANAGEMENT_CONNECTIONS))
        server = await asyncio.get_running_loop().create_server(
            lambda: Connection(
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
                pool=pool,
            ),
            sock=management,
        )
        self.servers.append(server)

    async def on_tick(self, counter: int) -> bool:
        """Announce a new phase, and return whether to stop; uvicorn calls it ten times a second."""
        self._announce_phase()
        return await super().on_tick(counter) or self._is_over()

    def _is_over(self) -> bool:
        """Whether to stop: the model did not open, or the drain is complete or out of time."""
        if self._state.phase is Phase.FAILED:
            return True
        if self._give_up_at is None:
            return False
        return self._state.in_flight == 0 or time.perf_counter() >= self._give_up_at

    def _announce_phase(self) -> None:
        """Print a line when the server becomes ready or begins to drain."""
        phase = self._state.phase
        if phase is self._announced:
            return
        self._announced = phase
        if phase is Phase.READY:
            grpc = self._state.grpc_address
            management = self._management and url_of(self._management)
            self._say(
                f"ready on {self._url}"
                + (f", gRPC on {grpc}" if grpc else "")
                + (f", management on {management}" if management else "")
            )
        elif phase is Phase.DRAINING:
            self._say(
                f"draining: {self._state.in_flight} requests in flight; "
                "a second signal ends the server at once"
            )
