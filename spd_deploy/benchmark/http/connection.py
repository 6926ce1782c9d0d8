"""One kept-alive connection to a server: a request at a time, and its answer."""

import json
import socket
import ssl
from typing import Any

from spd_deploy.benchmark.http.wire import Address, AnswerReader, HttpAnswer, get
from spd_deploy.domain.errors import BadSetting, Unavailable

_RECEIVE_BYTES = 262_144


class ClientConnection:
    """A socket that is written to and read from by one thread."""

    def __init__(self, address: Address, *, timeout_s: float = 60.0) -> None:
        """Connect.

        Raises:
            OSError: nobody listens there, or the certificate is not trusted.
        """
        plain = socket.create_connection((address.host, address.port), timeout=timeout_s)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = plain
        if address.tls:
            context = ssl.create_default_context()
            self._socket = context.wrap_socket(plain, server_hostname=address.host)
        self._reader = AnswerReader()

    def fileno(self) -> int:
        """The descriptor, for ``select``."""
        return self._socket.fileno()

    def send(self, request: bytes) -> None:
        """Send a whole request.

        Raises:
            OSError: the server hung up or does not read.
        """
        self._socket.sendall(request)

    def receive(self) -> HttpAnswer | None:
        """Read what has arrived, waiting for some; the answer where that completes it.

        Raises:
            OSError: the server hung up, does not answer in time, or does not speak HTTP.
        """
        answer = None
        while True:
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            answer = self._reader.feed(data) or answer
            # What TLS has decrypted already does not make the descriptor readable again.
            if not (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
                return answer

    def ask(self, request: bytes) -> HttpAnswer:
        """Send a request and wait for its answer.

        Raises:
            OSError: as :meth:`send` and :meth:`receive`.
        """
        self.send(request)
        while (answer := self.receive()) is None:
            pass
        return answer

    def close(self) -> None:
        """Hang up; the server sees the end of the connection."""
        self._socket.close()


def document_from(
    address: Address, path: str, *, api_key: str | None = None, timeout_s: float = 10.0
) -> dict[str, Any]:
    """The JSON object that a server gives for a path.

    Raises:
        Unavailable: nobody answers there, or not with a JSON object.
        BadSetting: the server wants an API key, or another one.
    """
    try:
        connection = ClientConnection(address, timeout_s=timeout_s)
        try:
            answer = connection.ask(get(address, path, api_key=api_key))
        finally:
            connection.close()
    except OSError as err:
        raise Unavailable(
            f"nobody answers at {address}",
            got=err.strerror or err,
            fix="start spd serve there, or check the URL",
        ) from err
    if answer.status in (401, 403):
        raise BadSetting(
            f"{address} wants an API key" if api_key is None else f"{address} refuses the API key",
            got=f"HTTP {answer.status}",
            fix="put its key into a file for --api-key-file, or into the variable SPD_API_KEY",
        )
    try:
        value = json.loads(answer.body)
    except ValueError:
        value = None
    if answer.status != 200 or not isinstance(value, dict):
        raise Unavailable(
            f"{address}{path} does not answer as spd serve does",
            got=f"HTTP {answer.status}",
            fix="give the URL of a running spd serve",
        )
    return value
