"""CORS: which web pages of other origins may call the server from a browser; by default none."""

import re
from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from spd_deploy.domain.errors import BadSetting

_ORIGIN = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")
_EXPOSED = ("X-Request-Id", "Server-Timing", "Retry-After")


def with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """The app with CORS headers for these origins; without origins the app itself.

    Browsers send keys only where a page's script adds them, so ``*`` is safe with API keys.

    Raises:
        BadSetting: one is neither an origin nor ``*``.
    """
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise BadSetting(
                "--cors-origins holds something that is no origin",
                got=origin,
                fix="write scheme and host as a browser sends them, such as https://app.example.org",
            )
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=("*",),
        expose_headers=_EXPOSED,
    )
