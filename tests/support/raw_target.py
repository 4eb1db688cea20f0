"""A target of outgoing requests that answers with raw bytes, so that a test can send what no HTTP library would."""

import contextlib
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.support.service import serving

Answer = bytes | Callable[[socketserver.StreamRequestHandler], None]

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Seen(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class RawTarget(socketserver.ThreadingTCPServer):
    """Answers each path with the bytes, or by the function, in `answers`; else with OK. One request a connection."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.seen: list[Seen] = []
        self.answers: dict[str, Answer] = {}
        self.port: int = self.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.done = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hangs up is none of the test's business


class _Connection(socketserver.StreamRequestHandler):
    server: RawTarget

    def handle(self) -> None:
        line = self.rfile.readline().decode("latin-1").split()
        headers: dict[str, str] = {}
        while (header := self.rfile.readline().strip()) != b"":
            name, _, value = header.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = self.rfile.read(int(headers.get("content-length", 0)))
        self.server.seen.append(Seen(line[0], line[1], headers, body))
        answer = self.server.answers.get(line[1].partition("?")[0], OK)
        if callable(answer):
            answer(self)
        else:
            self.wfile.write(answer)


@contextlib.contextmanager
def raw_target(tls: ssl.SSLContext | None = None) -> Iterator[RawTarget]:
    """A raw target that serves within the block."""
    target = RawTarget(tls)
    with serving(target):
        try:
            yield target
        finally:
            target.done.set()


def redirect(location: bytes, status: int = 302) -> bytes:
    """A redirect with this Location."""
    return b"HTTP/1.1 %d Found\r\nLocation: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % (status, location)


def reply(content_type: str, body: bytes, *more: str) -> bytes:
    """A 200 with this body."""
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join([*lines, *more, "", ""]).encode("latin-1") + body
