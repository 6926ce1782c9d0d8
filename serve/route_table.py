"""Finds the handler of a request: by its path first, then by its method.

Starlette's routing and FastAPI's middleware take longer than all of our own work, so neither runs.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path

from serve.access import Audience
from serve.http_errors import ErrorFormat
from serve.protocol import Endpoint, Handler, HttpProtocol

PathParameters = dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """A path and a method with their handler.

    Attributes:
        path: as the protocol spells it, with its parameters.
        protocol: the name of the protocol.
        errors: the protocol's form of errors.
        audience: for whom it is.
        queues: whether its requests wait for the model.
    """

    path: str
    protocol: str
    errors: ErrorFormat
    audience: Audience
    queues: bool
    handler: Handler

    @classmethod
    def of(cls, endpoint: Endpoint, protocol: HttpProtocol) -> "Route":
        """An endpoint of a protocol."""
        return cls(
            path=endpoint.path,
            protocol=protocol.name,
            errors=protocol.errors,
            audience=endpoint.audience,
            queues=endpoint.queues,
            handler=endpoint.handler,
        )


@dataclass(frozen=True, slots=True)
class _PathRoutes:
    """The routes of one path by method, and the answer to every other method."""

    methods: dict[str, Route] = field(default_factory=dict)

    def route(self, method: str) -> Route:
        """The route of a method; one that answers 405 for a method that the path does not take.

        The 405 has the audience and the form of errors of the path's first endpoint.
        """
        found = self.methods.get(method)
        if found is not None:
            return found
        first = next(iter(self.methods.values()))
        allowed = ", ".join(sorted(self.methods))

        async def refuse(_: Request) -> Response:
            raise HTTPException(
                405,
                f"{first.path} does not take this method; got {method}; use {allowed}",
                {"Allow": allowed},
            )

        return Route(
            path=first.path,
            protocol=first.protocol,
            errors=first.errors,
            audience=first.audience,
            queues=False,
            handler=refuse,
        )


class RouteTable:
    """The endpoints of all protocols by path and method."""

    def __init__(self, protocols: Iterable[HttpProtocol]) -> None:
        """Take in the endpoints; those of GET also answer HEAD.

        Methods of one path may belong to several protocols. Of two paths with parameters that both
        fit a request, such as ``/v1/{name}`` and ``/v1/{name}:predict``, the first in order is
        taken.

        Raises:
            ValueError: two endpoints have the same method and path.
        """
        self._paths: dict[str, _PathRoutes] = {}
        for protocol in protocols:
            for endpoint in protocol.endpoints():
                route = Route.of(endpoint, protocol)
                self._add(endpoint.method, route)
                if endpoint.method == "GET":
                    self._add("HEAD", route)
        self._refuse_same_paths()
        self._patterns: list[tuple[re.Pattern[str], _PathRoutes]] = [
            (compile_path(path)[0], routes) for path, routes in self._paths.items() if "{" in path
        ]

    def _add(self, method: str, route: Route) -> None:
        """Add the route of a method.

        Raises:
            ValueError: there is one already.
        """
        methods = self._paths.setdefault(route.path, _PathRoutes()).methods
        if method in methods:
            raise ValueError(
                f"{method} {route.path} has two handlers: of the protocols "
                f"{methods[method].protocol} and {route.protocol}; remove one of them"
            )
        methods[method] = route

    def _refuse_same_paths(self) -> None:
        """Refuse two paths that differ in the names of their parameters alone.

        Raises:
            ValueError: the second of them would never be found.
        """
        spelled: dict[str, str] = {}
        for path in self._paths:
            other = spelled.setdefault(re.sub(r"\{[^}]*\}", "{}", path), path)
            if other != path:
                raise ValueError(f"{other} and {path} are one path; give its parameters one name")

    def find(self, path: str, method: str) -> tuple[Route, PathParameters]:
        """The route of a request, and the values of the parameters of its path.

        Raises:
            HTTPException: 404; there is no such path.
        """
        routes = self._paths.get(path)
        if routes is not None and "{" not in path:
            return routes.route(method), {}
        for pattern, candidate in self._patterns:
            if fits := pattern.match(path):
                return candidate.route(method), fits.groupdict()
        raise HTTPException(
            404, f"the path does not exist; got {path}; see /docs for the paths that do"
        )
