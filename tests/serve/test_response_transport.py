"""The transport of answers, where a client is gone before the server knows."""

import asyncio
import socket
import struct
import time

from serve.response_transport import ResponseTransport


def test_a_connection_that_was_reset_is_closed_without_an_error() -> None:
    """The system refuses to close the sending side of it; the connection ends all the same."""

    async def close_after_reset() -> bool:
        loop = asyncio.get_running_loop()
        made: asyncio.Future[asyncio.Transport] = loop.create_future()

        class Accepting(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                assert isinstance(transport, asyncio.Transport)
                made.set_result(transport)

        server = await loop.create_server(Accepting, "127.0.0.1", 0)
        client = socket.create_connection(server.sockets[0].getsockname())
        transport = ResponseTransport(await made, write_timeout_s=1.0, still_sends=lambda: True)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # with a reset
        time.sleep(0.05)
        transport.close()
        server.close()
        return transport.is_closing()

    assert asyncio.run(close_after_reset())
