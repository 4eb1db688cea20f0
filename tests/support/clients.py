"""Clients that misbehave, on plain sockets."""

import contextlib
import socket
import struct
import time
from collections.abc import Iterator

from tests.support.service import Service

HEAD = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def connect(service: Service, sent: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
    """A connection from this address (any of 127.0.0.0/8) that has sent this."""
    connection = socket.create_connection(("127.0.0.1", service.port), 20, (source, 0))
    connection.sendall(sent)
    return connection


def answer(connection: socket.socket, seconds: float = 30) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers by their names in lower case, and the body of the answer that this connection receives.

    The status is 0 where it was closed without one.
    """
    received = b""
    deadline = time.monotonic() + seconds
    while True:
        head, separator, body = received.partition(b"\r\n\r\n")
        if separator:
            status, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if len(body) >= int(headers.get("content-length", 0)):
                return int(status.split()[1]), headers, body
        connection.settimeout(max(deadline - time.monotonic(), 0.01))
        more = connection.recv(1 << 16)
        if not more:
            return 0, {}, received
        received += more


def is_closed(connection: socket.socket, seconds: float = 30) -> bool:
    """Return True if the other side closes this connection within this time, even after sending data."""
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            connection.settimeout(max(deadline - time.monotonic(), 0.01))
            if not connection.recv(1 << 16):
                return True
    except ConnectionError:
        return True
    except TimeoutError:
        pass
    return False


def reset(connection: socket.socket) -> None:
    """Close with a RST, as a client does that dies."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextlib.contextmanager
def many(connections: Iterator[socket.socket]) -> Iterator[list[socket.socket]]:
    """These connections, closed after the block."""
    opened: list[socket.socket] = []
    try:
        for connection in connections:
            opened.append(connection)
        yield opened
    finally:
        for connection in opened:
            connection.close()
