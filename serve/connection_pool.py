"""All connections of a server: how many there are, which of them wait, and what they hold.

At the limit a new connection takes the place of the one that has waited longest for its next
request, so that idle or dripping clients keep nobody out. Where every connection has a request that
is being answered, a new one is served probes only. All of it runs in the event loop's thread.
"""

from typing import Protocol

from serve.retry_after import overloaded
from serve.settings import ServeSettings
from spd_deploy.domain.errors import Overloaded

# So much of a body does not count: a short request gets in beside any number of long ones.
FREE_BYTES = 65_536
# Connections beyond the limit that are let in for their probes.
SPARE = 32
PROBES = frozenset(
    {b"/livez", b"/readyz", b"/health", b"/ping", b"/v2/health/live", b"/v2/health/ready"}
)


class Evictable(Protocol):
    """A connection, as the pool sees it."""

    def evict(self) -> None:
        """Close it to make room."""
        ...


class ConnectionPool:
    """The connections of one server, and the bytes of bodies that they hold."""

    def __init__(self, settings: ServeSettings, *, max_open_files: int | None = None) -> None:
        """``max_open_files`` is the process's limit; a part of it stays free for other files."""
        self.settings = settings
        self._limit = settings.max_connections
        if max_open_files is not None:
            self._limit = max(1, min(self._limit, max_open_files - reserve_of(max_open_files)))
        self._open: set[Evictable] = set()
        self._waiting: dict[Evictable, None] = {}  # the longest wait first
        self.held_bytes = 0

    @property
    def limit(self) -> int:
        """Most connections, without the spare ones."""
        return self._limit

    def __len__(self) -> int:
        """The number of connections."""
        return len(self._open)

    def opened(self, connection: Evictable) -> bool:
        """Note a new connection; returns whether there was room for it."""
        if len(self._open) >= self._limit and self._waiting:
            self._evict(next(iter(self._waiting)))
        has_room = len(self._open) < self._limit
        self._open.add(connection)
        self._waiting[connection] = None
        return has_room

    @property
    def full(self) -> bool:
        """Whether even the spare places are taken."""
        return len(self._open) > self._limit + SPARE

    def _evict(self, connection: Evictable) -> None:
        """Close a connection; its place is free at once."""
        self._open.discard(connection)
        self._waiting.pop(connection)
        connection.evict()

    def closed(self, connection: Evictable, held_bytes: int) -> None:
        """Forget a connection, and the bytes of bodies that it held."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)
        self.held_bytes -= held_bytes

    def waits(self, connection: Evictable) -> None:
        """Note that the connection waits for its next request."""
        if connection in self._open:
            self._waiting[connection] = None

    def works(self, connection: Evictable) -> None:
        """Note that the connection has a whole request that is being answered."""
        self._waiting.pop(connection, None)

    def refuse_bytes(self) -> Overloaded | None:
        """The error of a body for which there is no room; None where there is."""
        if self.held_bytes <= self.settings.max_bodies_bytes:
            return None
        return overloaded("the server holds too many request bodies")

    @staticmethod
    def refuse_connection() -> Overloaded:
        """The error of a request beyond the last place."""
        return overloaded("the server has too many connections")


def reserve_of(max_open_files: int) -> int:
    """File descriptors that stay free for the model, the log and spare connections."""
    return min(SPARE + 96, max_open_files // 2)
