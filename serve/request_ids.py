"""The id of the request that is being answered, for whoever logs on its behalf."""

import re
import secrets
from contextvars import ContextVar

REQUEST_ID = "X-Request-Id"
current_request_id: ContextVar[str] = ContextVar("request_id", default="-")
_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_from(given: str | None) -> str:
    """The client's own id where it is a harmless one, else a new one."""
    return given if given and _ACCEPTED_ID.fullmatch(given) else secrets.token_hex(8)
