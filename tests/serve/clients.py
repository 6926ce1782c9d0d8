"""Clients of an app: a whole one over HTTP, and one that sends single messages and can leave."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message

from serve.access import Access
from serve.app import create_app
from serve.model_source import ModelSource
from serve.open_model import ServedModel
from serve.repository import Repository
from serve.request_record import Observer
from serve.settings import ServeSettings
from serve.shadow import ShadowSpec
from serve.state import Phase, ServerState
from tests.serve.fakes import PATIENCE_S

JSON = {"Content-Type": "application/json"}


@contextlib.contextmanager
def client_of(
    served: ServedModel | Callable[[], ServedModel] | Sequence[ModelSource],
    settings: ServeSettings | None = None,
    *,
    repository: Repository | None = None,
    shadows: Sequence[ShadowSpec] = (),
    watch: bool = False,
    access: Access | None = None,
    cors_origins: Sequence[str] = (),
    observers: Sequence[Observer] = (),
) -> Iterator[TestClient]:
    """A client of an app that is ready; a function opens the model each time that it is loaded."""
    state = ServerState()
    opened = (lambda: served) if isinstance(served, ServedModel) else served
    app = create_app(
        opened,
        settings or ServeSettings(),
        state=state,
        repository=repository,
        shadows=shadows,
        watch=watch,
        access=access,
        cors_origins=cors_origins,
        observers=observers,
    )
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until_settled(state)
        yield client


def wait_until_settled(state: ServerState) -> None:
    """Return once the app is no longer starting."""
    give_up_at = time.perf_counter() + PATIENCE_S
    while state.phase is Phase.STARTING:
        assert time.perf_counter() < give_up_at
        time.sleep(0.005)


def metric(client: TestClient, name: str) -> float:
    """The sum of the series of ``/metrics`` with this name and at least these labels."""
    return sum(series_of(client.get("/metrics").text, name))


def series_of(page: str, wanted: str) -> list[float]:
    """The values of the series with this name and at least these labels, such as ``a{b="c"}``."""
    name, _, labels = wanted.rstrip("}").partition("{")
    found = []
    for line in page.splitlines():
        series, _, value = line.rpartition(" ")
        its_name, _, its_labels = series.rstrip("}").partition("{")
        its = set(re.findall(r'\w+="[^"]*"', its_labels))
        if its_name == name and its >= set(re.findall(r'\w+="[^"]*"', labels)):
            found.append(float(value))
    return found


class Exchange:
    """One request to an app on the running event loop, whose client may leave before its answer."""

    def __init__(
        self, app: ASGIApp, path: str, body: object, *, method: str = "POST", whole: bool = True
    ) -> None:
        """Send the request; where it is not ``whole``, more of its body is to come."""
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._messages.put_nowait(
            {"type": "http.request", "body": json.dumps(body).encode(), "more_body": not whole}
        )
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self._body = b""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"test"), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self.task = asyncio.ensure_future(self._run(app, scope))

    async def _run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        await app(scope, self._messages.get, self._send)

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode().lower(): v.decode() for k, v in message["headers"]}
        else:
            self._body += message.get("body", b"")

    @property
    def text(self) -> str:
        """What came so far."""
        return self._body.decode()

    def leave(self) -> None:
        """Close the connection."""
        self._messages.put_nowait({"type": "http.disconnect"})

    async def answer(self) -> Any:
        """The answer's JSON value, once it is complete."""
        await asyncio.wait_for(self.task, PATIENCE_S)
        return json.loads(self._body) if self._body else None


@contextlib.asynccontextmanager
async def ready(
    served: ServedModel | Sequence[ModelSource], settings: ServeSettings | None = None
) -> AsyncIterator[tuple[ASGIApp, ServerState]]:
    """An app on the running event loop, open until the block ends."""
    state = ServerState()
    opened = (lambda: served) if isinstance(served, ServedModel) else served
    app = create_app(opened, settings or ServeSettings(), state=state)
    async with app.router.lifespan_context(app):
        await until(lambda: state.phase is not Phase.STARTING)
        yield app, state


async def until(is_so: Callable[[], bool]) -> None:
    """Return once it is so."""
    give_up_at = time.perf_counter() + PATIENCE_S
    while not is_so():
        assert time.perf_counter() < give_up_at
        await asyncio.sleep(0.002)
