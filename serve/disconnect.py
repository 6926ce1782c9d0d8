"""Cancels the work for a client that closed its connection."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from serve.http_errors import ClientDisconnected

T = TypeVar("T")

# Most requests are answered before; a task that watches them would cost a tenth of their time.
_WATCH_AFTER_S = 0.02


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, and cancel it when the client closes its connection.

    The connection is watched from 20 ms on. The request's body must have been read to its end
    before.

    Raises:
        ClientDisconnected: the client closed the connection first.
    """
    handler = asyncio.current_task()
    watcher: asyncio.Task[None] | None = None
    running = True

    def watch() -> None:
        nonlocal watcher
        watcher = asyncio.ensure_future(_wait_for_disconnect(request))
        watcher.add_done_callback(cancel)

    def cancel(_: object) -> None:
        if running and handler is not None:
            handler.cancel()

    timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, watch)
    try:
        return await work
    except asyncio.CancelledError:
        gone = watcher is not None and watcher.done()
        if gone and handler is not None and handler.uncancel() == 0:
            raise ClientDisconnected from None
        raise
    finally:
        running = False
        timer.cancel()
        if watcher is not None:
            watcher.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    """Return when the client has closed its connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
