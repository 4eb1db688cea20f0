"""A client that stalls half its uploads: the others have to arrive, and other clients must not wait."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable
from random import Random
from urllib.parse import urlsplit

import httpx

from tests.chaos.load import Accepted, some_job

CLIENTS = 96
"""Uploads at once: three times as many as the service works on at once."""

ANSWER_SECONDS = 5.0
"""Within so many seconds everybody else has to be answered, on a machine as busy as this one."""


class Stalling:
    """Half requests, open until `finish`; and a client beside them that asks whether the service still answers."""

    def __init__(self, url: str, random: Random, is_alive: Callable[[], bool]) -> None:
        self.accepted: list[Accepted] = []
        self.delayed: list[str] = []
        """What the client beside them met: an answer that did not come in time."""
        self._url, self._is_alive = url, is_alive
        self._uploads: list[tuple[socket.socket, bytes, str, dict[str, object]]] = []
        self._is_over = threading.Event()
        for _ in range(CLIENTS):
            with contextlib.suppress(OSError):
                self._uploads.append(self._open(random))
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _open(self, random: Random) -> tuple[socket.socket, bytes, str, dict[str, object]]:
        kind, job = some_job(random)
        body = json.dumps(job).encode()
        parts = urlsplit(self._url)
        head = (
            f"POST /jobs HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        ).encode()
        whole = head + body
        sent = random.randrange(1, len(whole))
        upload = socket.create_connection((parts.hostname, parts.port), timeout=ANSWER_SECONDS)
        upload.sendall(whole[:sent])
        return upload, whole[sent:], kind, job

    def _watch(self) -> None:
        with httpx.Client(base_url=self._url, timeout=ANSWER_SECONDS) as client:
            while not self._is_over.wait(0.25):
                try:
                    client.get("/healthz")
                except httpx.TimeoutException as error:
                    if self._is_alive():
                        self.delayed.append(f"GET /healthz: {type(error).__name__}")
                except httpx.TransportError:
                    pass  # the service was killed

    def finish(self) -> None:
        """Send the rest of half of the uploads, and hang up on the others."""
        for number, (upload, rest, kind, job) in enumerate(self._uploads):
            with contextlib.suppress(OSError), upload:
                if number % 2:
                    upload.settimeout(ANSWER_SECONDS)
                    upload.sendall(rest)
                    if job_id := _accepted(upload):
                        self.accepted.append(Accepted(job_id, kind, dict(job)))
        self._uploads.clear()
        self._is_over.set()
        self._thread.join()


def _accepted(upload: socket.socket) -> str | None:
    """The id of the job if the answer is a whole 202."""
    answer = b""
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline and (chunk := upload.recv(65536)):
        answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 202 " not in head.partition(b"\r\n")[0] + b" ":
        return None
    with contextlib.suppress(ValueError, KeyError):
        return str(json.loads(body)["jobId"])
    return None
