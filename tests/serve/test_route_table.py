"""The table of routes: each method of a path has one handler, and what belongs to its protocol."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from serve.access import Audience
from serve.context import ServerContext
from serve.http_errors import ErrorFormat
from serve.protocol import Endpoint, HttpProtocol
from serve.route_table import RouteTable


def protocol_of(
    name: str, *endpoints: tuple[str, str], audience: Audience = Audience.CLIENTS
) -> HttpProtocol:
    """A protocol with these methods and paths, each answered with the protocol's name."""

    async def answer(_: Request) -> Response:
        return PlainTextResponse(name)

    class Made(HttpProtocol):
        errors = ErrorFormat()

        def endpoints(self) -> Sequence[Endpoint]:
            return [
                Endpoint(method=method, path=path, handler=answer, audience=audience)
                for method, path in endpoints
            ]

    Made.name = name
    return Made(cast("ServerContext", None))


def answered(table: RouteTable, method: str, path: str) -> str:
    """Who answers."""
    route, _ = table.find(path, method)
    return bytes(asyncio.run(cast("Any", route.handler)(None)).body).decode()


@pytest.mark.parametrize("path", ["/a", "/a/{name}"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_a_second_handler_is_refused(path: str, method: str) -> None:
    """Two handlers of one method and path are refused, and both protocols are named."""
    first = "GET" if method == "HEAD" else method
    with pytest.raises(ValueError, match=rf"{method} .* of the protocols one and other"):
        RouteTable([protocol_of("one", (first, path)), protocol_of("other", (method, path))])


def test_one_protocol_has_no_handler_twice_either() -> None:
    """A protocol that lists a method and path twice is refused."""
    with pytest.raises(ValueError, match="two handlers"):
        RouteTable([protocol_of("one", ("POST", "/a"), ("POST", "/a"))])


def test_names_of_parameters_make_no_other_path() -> None:
    """Paths that differ in the names of their parameters alone are refused, with both spellings."""
    with pytest.raises(ValueError, match=r"/a/\{x\} and /a/\{y\}"):
        RouteTable(
            [protocol_of("one", ("GET", "/a/{x}")), protocol_of("other", ("POST", "/a/{y}"))]
        )


@pytest.mark.parametrize("path", ["/a", "/a/{name}"])
def test_each_method_belongs_to_its_protocol(path: str) -> None:
    """Methods of one path have the handler, name, errors and audience of their own protocol."""
    one = protocol_of("one", ("POST", path))
    other = protocol_of("other", ("GET", path), audience=Audience.PROBES)
    table = RouteTable([one, other])

    for method, protocol in (("POST", one), ("GET", other), ("HEAD", other)):
        route, _ = table.find(path.format(name="x"), method)
        assert route.protocol == protocol.name
        assert route.errors is protocol.errors
        assert route.audience is protocol.endpoints()[0].audience
        assert answered(table, method, path.format(name="x")) == protocol.name


def test_an_unknown_method_is_told_the_known_ones() -> None:
    """The route of a method that the path does not take answers 405 with those that it takes."""
    table = RouteTable([protocol_of("one", ("POST", "/a")), protocol_of("other", ("GET", "/a"))])
    route, _ = table.find("/a", "DELETE")

    with pytest.raises(HTTPException, match="use GET, HEAD, POST") as refused:
        asyncio.run(cast("Any", route.handler)(None))

    assert refused.value.status_code == 405
    assert (route.protocol, route.queues) == ("one", False)


def test_the_first_of_two_fitting_paths_is_taken() -> None:
    """A path that fits two routes with parameters goes to the one that is listed first."""
    table = RouteTable(
        [protocol_of("one", ("GET", "/a/{x}:run")), protocol_of("other", ("GET", "/a/{x}"))]
    )

    assert answered(table, "GET", "/a/b:run") == "one"
    assert answered(table, "GET", "/a/b") == "other"
