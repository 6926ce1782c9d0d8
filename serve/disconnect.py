"""Cancels the work for a client that closed its connection."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from serve.http_errors import ClientDisconnected

T = TypeVar("T")


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, and cancel it when the client closes its connection.

    The request's body must have been read to its end before.

    Raises:
        ClientDisconnected: the client closed the connection first.
    """
    handler = asyncio.current_task()
    watcher = asyncio.ensure_future(_wait_for_disconnect(request))
    running = True

    def cancel(_: object) -> None:
        if running and handler is not None:
            handler.cancel()

    watcher.add_done_callback(cancel)
    try:
        return await work
    except asyncio.CancelledError:
        if watcher.done() and handler is not None and handler.uncancel() == 0:
            raise ClientDisconnected from None
        raise
    finally:
        running = False
        watcher.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
