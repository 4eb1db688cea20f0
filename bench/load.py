"""A load generator for HTTP: one thread, plain sockets, one request under way on each connection.

It takes 0.02 ms of CPU for a request, much less than any API here takes to answer one.
"""

import gc
import json
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.environment import BenchError

MAX_BATCH = 1000

LATE = 1.0
"""Delay in seconds at which `post_at` stops."""


@dataclass(frozen=True)
class Load:
    """The results of a load: responses per second, and their times in seconds, ascending."""

    rate: float
    times: list[float]

    def quantile(self, share: float) -> float:
        """Seconds within which this share of the requests was answered."""
        return self.times[min(int(len(self.times) * share), len(self.times) - 1)]


class Refused(BenchError):
    """An answer that was no 202."""


class Client:
    """A connection that is kept."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began = 0.0
        self._received = b""

    def send(self, request: bytes) -> None:
        self.began = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> bytes | None:
        """The answer's body once all of it has come. Raises Refused if it is no 202."""
        self._received += self.socket.recv(1 << 16)
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if not separator:
            if not self._received:
                raise Refused("the connection was closed")
            return None
        start = head.lower().index(b"content-length:") + len(b"content-length:")
        if len(body) < int(head[start:].partition(b"\r")[0]):
            return None
        self._received = b""
        if head[9:12] != b"202":
            raise Refused((head + body)[:500].decode())
        return body


def request(path: str, body: bytes) -> bytes:
    """A POST of JSON, as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def post_all(client: Client, jobs: Sequence[dict[str, Any]]) -> list[str]:
    """POST these jobs in batches; returns their ids. Raises Refused."""
    ids: list[str] = []
    for start in range(0, len(jobs), MAX_BATCH):
        client.send(request("/jobs/batch", json.dumps({"jobs": jobs[start : start + MAX_BATCH]}).encode()))
        while (answer := client.receive()) is None:
            pass
        ids += json.loads(answer)["jobIds"]
    return ids


def post(port: int, path: str, body: bytes, *, connections: int, seconds: float = 1e9, number: int = 1 << 60) -> Load:
    """Send a request again and again over so many connections, for so long or so often. Raises Refused."""
    wire = request(path, body)
    clients = {client.socket.fileno(): client for client in (Client(port) for _ in range(connections))}
    times: list[float] = []
    gc.collect()
    gc.disable()
    try:
        with select.epoll() as poll:
            for fileno in clients:
                poll.register(fileno, select.EPOLLIN)
            began = time.perf_counter()
            deadline, left, under_way = began + seconds, number, 0
            for client in list(clients.values())[:number]:
                client.send(wire)
                left, under_way = left - 1, under_way + 1
            while under_way:
                for fileno, _ in poll.poll():
                    client = clients[fileno]
                    if client.receive() is None:
                        continue
                    now = time.perf_counter()
                    times.append(now - client.began)
                    if now < deadline and left:
                        left -= 1
                        client.send(wire)
                    else:
                        under_way -= 1
            took = time.perf_counter() - began
    finally:
        gc.enable()
        for client in clients.values():
            client.socket.close()
    return Load(len(times) / took, sorted(times))


def post_at(port: int, rate: float, seconds: float, *, connections: int, body: Callable[[float], bytes]) -> int:
    """POST jobs at a fixed rate, each as soon as a connection is free; returns how many were answered.

    body: returns the body for the time (seconds since 1970) at which the job is to be sent. Stops once it is LATE
    seconds behind. Raises Refused.
    """
    clients = {client.socket.fileno(): client for client in (Client(port) for _ in range(connections))}
    free, sent, answered, number = deque(clients.values()), 0, 0, int(rate * seconds)
    began = time.time()
    with select.epoll() as poll:
        for fileno in clients:
            poll.register(fileno, select.EPOLLIN)
        while answered < sent or (sent < number and time.time() < began + sent / rate + LATE):
            while free and sent < number and (at := began + sent / rate) <= time.time() < at + LATE:
                free.popleft().send(request("/jobs", body(at)))
                sent += 1
            pause = max(began + sent / rate - time.time(), 0) if free and sent < number else LATE
            for fileno, _ in poll.poll(pause):
                if clients[fileno].receive() is not None:
                    free.append(clients[fileno])
                    answered += 1
    for client in clients.values():
        client.socket.close()
    return answered
