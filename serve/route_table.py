"""Finds the handler of a request: by its path first, then by its method.

Starlette's routing and FastAPI's middleware take longer than all of our own work, so neither runs.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from serve.access import Audience
from serve.http_errors import ErrorFormat
from serve.protocol import Endpoint, Handler, HttpProtocol

PathParameters = dict[str, str]


@dataclass(frozen=True, slots=True)
class PathRoute:
    """A path with the handler of each method, its audience, and its protocol's form of errors."""

    path: str
    errors: ErrorFormat
    audience: Audience
    protocol: str
    handlers: dict[str, Handler] = field(default_factory=dict)
    queueing: set[str] = field(default_factory=set)

    def queues(self, method: str) -> bool:
        """Whether requests of the method wait for the model."""
        return method in self.queueing

    def handler(self, method: str) -> Handler:
        """The handler of a method; HEAD has that of GET.

        Raises:
            HTTPException: 405; the path does not take the method.
        """
        found = self.handlers.get(method)
        if found is None:
            allowed = ", ".join(sorted(self.handlers))
            raise HTTPException(
                405,
                f"{self.path} does not take this method; got {method}; use {allowed}",
                {"Allow": allowed},
            )
        return found


class RouteTable:
    """The endpoints of all protocols by path."""

    def __init__(self, protocols: Iterable[HttpProtocol]) -> None:
        """Where several paths with parameters fit a request, the first in order is taken.

        Methods of one path may belong to several protocols; the first one's form of errors counts.
        """
        self._routes: dict[str, PathRoute] = {}
        for protocol in protocols:
            for endpoint in protocol.endpoints():
                self._add(endpoint, protocol)
        self._patterns: list[tuple[re.Pattern[str], PathRoute]] = [
            (compile_path(path)[0], route) for path, route in self._routes.items() if "{" in path
        ]

    def _add(self, endpoint: Endpoint, protocol: HttpProtocol) -> None:
        """Add one endpoint; HEAD has the handler of GET."""
        route = self._routes.setdefault(
            endpoint.path,
            PathRoute(endpoint.path, protocol.errors, endpoint.audience, protocol.name),
        )
        route.handlers[endpoint.method] = endpoint.handler
        if endpoint.queues:
            route.queueing.add(endpoint.method)
        if endpoint.method == "GET":
            route.handlers["HEAD"] = endpoint.handler

    def find(self, path: str) -> tuple[PathRoute, PathParameters]:
        """The route of a path, and the values of its parameters.

        Raises:
            HTTPException: 404; there is no such path.
        """
        route = self._routes.get(path)
        if route is not None and "{" not in path:
            return route, {}
        for pattern, candidate in self._patterns:
            if fits := pattern.match(path):
                return candidate, fits.groupdict()
        raise HTTPException(
            404, f"the path does not exist; got {path}; see /docs for the paths that do"
        )
