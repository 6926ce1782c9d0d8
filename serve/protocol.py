"""The parts of a protocol: endpoints, a form of errors, and a part of the description.

Each protocol is a class in ``serve/protocols/``, listed in ``serve/protocols/registry.py``. Its
handlers are methods; their docstrings are the text of ``/docs``.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from serve.access import Audience
from serve.context import ServerContext
from serve.http_errors import STATUS, ErrorFormat
from serve.protocols.input_spec import InputSpec
from spd_deploy.domain.errors import (
    NotReady,
    Overloaded,
    Refusal,
    Unauthenticated,
    UnknownModel,
)

Handler = Callable[[Request], Awaitable[Response]]

# Where keys are needed, the description adds the refusal of a request without one by itself.
OF_A_NAMED_MODEL = tuple(refusal for refusal in STATUS if refusal is not Unauthenticated)
EVERY_REFUSAL = tuple(refusal for refusal in OF_A_NAMED_MODEL if refusal is not UnknownModel)
WHILE_STARTING: tuple[type[Refusal], ...] = (NotReady,)
LOOKING_UP: tuple[type[Refusal], ...] = (UnknownModel, NotReady)


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """A method and a path with their handler.

    Attributes:
        path: may have parameters, such as ``/v2/models/{name}``; a parameter has no slash.
        body: the models of which the request's body is one; empty where there is no body.
        body_required: whether a request must have a body.
        reply: the model of the reply, for the description.
        refusals: the errors that the description lists.
        audience: for whom it is; that decides whether it needs an API key, and its port.
        described: whether OpenAPI and ``/docs`` show it.
        reranks: whether it needs a model that gives a pair one score; of others it is not shown.
    """

    method: str
    path: str
    handler: Handler
    body: tuple[type[BaseModel], ...] = ()
    body_required: bool = True
    reply: Any = None
    refusals: tuple[type[Refusal], ...] = EVERY_REFUSAL
    audience: Audience = Audience.CLIENTS
    described: bool = True
    reranks: bool = False

    @property
    def queues(self) -> bool:
        """Whether its requests wait for the model; they are refused unread where it is full."""
        return bool(self.body) and self.body_required and Overloaded in self.refusals


class HttpProtocol(ABC):
    """A family of endpoints, made once for each app."""

    name: ClassVar[str]
    errors: ClassVar[ErrorFormat] = ErrorFormat()

    def __init__(self, server: ServerContext) -> None:
        self._server = server

    @abstractmethod
    def endpoints(self) -> Sequence[Endpoint]:
        """Every method and path of the protocol."""

    def specialise(self, schemas: dict[str, Any], spec: InputSpec) -> None:  # noqa: B027
        """Narrow the OpenAPI schemas of its bodies, if any, to the open model; add examples."""
