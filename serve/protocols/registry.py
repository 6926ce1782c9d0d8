"""The protocols that the server speaks; of two that fit a path, the first in order answers."""

from serve.protocol import HttpProtocol
from serve.protocols.native import Native
from serve.protocols.operations import Operations
from serve.protocols.tei import Tei

PROTOCOLS: tuple[type[HttpProtocol], ...] = (
    Native,
    Tei,
    Operations,
)
