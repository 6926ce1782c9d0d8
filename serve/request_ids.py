"""Request ids: the header ``X-Request-Id``, and the current id for the log."""

import re
import secrets
from contextvars import ContextVar

REQUEST_ID = "X-Request-Id"
current_request_id: ContextVar[str] = ContextVar("request_id", default="-")
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_from(given: str | None) -> str:
    """The client's id if it has 1 to 64 letters, digits, ``.``, ``_`` or ``-``; else a new one."""
    return given if given and _ACCEPTED_ID.fullmatch(given) else secrets.token_hex(8)
