"""Stops working for a client that has left."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from serve.http_errors import ClientLeft

T = TypeVar("T")


async def unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, which is cancelled when the client closes its connection.

    The request's body must have been read.

    Raises:
        ClientLeft: it did.
    """
    working, leaving = asyncio.current_task(), asyncio.ensure_future(_left(request))
    at_work = True

    def cancel(_: object) -> None:
        if at_work and working is not None:
            working.cancel()

    leaving.add_done_callback(cancel)
    try:
        return await work
    except asyncio.CancelledError:
        if leaving.done() and working is not None and working.uncancel() == 0:
            raise ClientLeft from None
        raise
    finally:
        at_work = False
        leaving.cancel()


async def _left(request: Request) -> None:
    """Return once the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
