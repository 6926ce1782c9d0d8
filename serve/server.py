"""Runs the app in uvicorn as a process should: one line when ready, a drain, a clean exit.

Stock uvicorn closes its door at the first SIGTERM, answers what it cannot finish with a bare 500
and ends with the signal's own exit status. Here SIGTERM or Ctrl-C first turns ``/readyz`` to 503
and refuses new work, while the door stays open for probes; when the last request in flight is
answered, or the drain's time is over and the rest was answered with 503, the process ends with
exit status 0. A second signal ends it at once.
"""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from serve.connection import Connection
from serve.state import Phase, ServerState
from spd_deploy.domain.errors import Unavailable

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_KEEP_ALIVE_S = 75
_CANCEL_AFTER_S = 1
_BACKLOG = 2048

Say = Callable[[str], None]


def bound_socket(host: str, port: int) -> socket.socket:
    """A listening socket, taken before any model is opened for it.

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
            fix="choose another --port, or stop what listens there",
        ) from err


def url_of(listening: socket.socket) -> str:
    """The address to type into a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def config_of(app: ASGIApp) -> uvicorn.Config:
    """How uvicorn serves the app: its own parser, our connection, and no word in the log."""
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_CANCEL_AFTER_S,
    )


def run(
    app: ASGIApp, life: ServerState, listening: socket.socket, *, drain_timeout_s: float, say: Say
) -> None:
    """Serve until a signal, and drain.

    Args:
        app: what :func:`serve.app.create_app` made.
        life: the one that was given to it.
        listening: closed in the end.
        drain_timeout_s: how long requests may take to finish after the first signal.
        say: told one line when the server is ready and one when it drains.

    Raises:
        SpdError: the model did not open.
    """
    server = _Server(
        config_of(app), life, drain_timeout_s=drain_timeout_s, say=say, url=url_of(listening)
    )
    server.run(sockets=[listening])
    if life.error is not None:
        raise life.error


class _Server(uvicorn.Server):
    """Uvicorn with its handling of signals and of the end replaced."""

    def __init__(
        self,
        config: uvicorn.Config,
        life: ServerState,
        *,
        drain_timeout_s: float,
        say: Say,
        url: str,
    ) -> None:
        super().__init__(config)
        self._life, self._say, self._url = life, say, url
        self._drain_timeout_s = drain_timeout_s
        self._give_up_at: float | None = None
        self._told: Phase | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals; unlike uvicorn's own, do not raise them again at the end."""
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal, end at the second."""
        if self._give_up_at is not None:
            os._exit(128 + sig)
        self._give_up_at = time.perf_counter() + self._drain_timeout_s
        self._life.drain()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: tell of a new phase, and find out whether it is time to end."""
        self._tell()
        return await super().on_tick(counter) or self._is_over()

    def _is_over(self) -> bool:
        """The model did not open, or everything in flight is answered or out of time."""
        if self._life.phase is Phase.FAILED:
            return True
        if self._give_up_at is None:
            return False
        return self._life.in_flight == 0 or time.perf_counter() >= self._give_up_at

    def _tell(self) -> None:
        """One line when a phase begins that somebody waits for."""
        phase = self._life.phase
        if phase is self._told:
            return
        self._told = phase
        if phase is Phase.READY:
            self._say(f"ready on {self._url}")
        elif phase is Phase.DRAINING:
            self._say(
                f"draining: {self._life.in_flight} requests in flight; "
                "a second signal ends it at once"
            )
