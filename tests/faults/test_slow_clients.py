"""No client can delay others.

The class: all that a client occupies while it sends, waits or reads has a limit that is not the client's. Its members,
by what they hold:

- a connection: no head, half a head, an idle connection kept alive, TLS or garbage sent to the plain port, HTTP/2;
- the reading of a body: half a body of any media type, with any method, to any path, with a length or chunked, without
  a key, after `Expect: 100-continue`, in a pipeline, byte by byte, or cut off;
- memory: bodies too large, many large bodies at once, large responses that are not read, pages of a list;
- slots of waiting clients: clients that disconnect, streams that are not read, one address that takes all slots;
- the end of the process: all of these while it is to stop.

The deadlines are shortened here, by `TUNE`.
"""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import Any

import httpx
import psutil
import pytest

from tests.support.clients import HEAD, answer, connect, is_closed, many, reset
from tests.support.service import Service, eventually

SECONDS = 2.0
"""How long a body has here; its head has as long."""

TUNE = f"""
from jobsvc.api.server import bodies, connection
bodies.SECONDS = {SECONDS}
serve.HEAD_SECONDS = {SECONDS}
serve.UNREAD_SECONDS = 3
"""

ANSWER_SECONDS = 5.0
"""Another client that gets no response within this time was delayed. During an attack it takes 0.1 s."""


@pytest.fixture(scope="module")
def service(apart: dict[str, str]) -> Iterator[Service]:
    service = Service(
        {**apart, "JOBSVC_HANDLERS": "tests.support.handlers.basic,tests.support.handlers.clients"}, tune=TUNE
    )
    yield service
    service.close()


def serving_process(service: Service) -> psutil.Process:
    """The process that serves: granian's worker."""
    [worker] = psutil.Process(service.api.popen.pid).children()
    return worker


def others_are_served(service: Service, rounds: int = 5) -> None:
    """Other clients' requests are answered, on new connections and on one that is kept."""
    with httpx.Client(base_url=service.url, timeout=ANSWER_SECONDS) as kept:
        for _ in range(rounds):
            for client in (kept, httpx):
                base = "" if client is kept else service.url
                assert client.get(f"{base}/healthz").status_code == 200
                assert client.get(f"{base}/readyz").status_code == 200
                assert client.post(f"{base}/jobs", json={"delay": 600}).status_code == 202
                assert client.post(f"{base}/jobs", json={"delay": 600, "uniqueKey": "same"}).is_success


@pytest.fixture
def nothing_leaks(service: Service) -> Iterator[None]:
    """After the test the process has as many open files as before, and not many more threads and bytes."""
    worker = serving_process(service)
    others_are_served(service, 1)
    before, memory = worker.num_fds(), worker.memory_info().rss
    yield
    eventually(lambda: worker.num_fds() <= before + 10, 30)  # connections to Postgres and Redis come and go
    assert worker.num_threads() < 32 + 256 + 40
    assert worker.memory_info().rss < memory + 150 * 2**20
    others_are_served(service, 1)


pytestmark = pytest.mark.usefixtures("nothing_leaks")


def request(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


JOB = "/jobs/01a20d9d-383b-755a-b743-f0ceb23ca29d"
HALF = {
    "JSON": HEAD + b'Content-Length: 100\r\n\r\n{"p',
    "nothing of a body": HEAD + b"Content-Length: 100\r\n\r\n",
    "a large body": HEAD + b'Content-Length: 100000\r\n\r\n{"p',
    "chunked": HEAD + b'Transfer-Encoding: chunked\r\n\r\n3\r\n{"p\r\n',
    "chunked, in the middle of a length": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1",
    "text": request("POST", "/jobs", "Content-Type: text/plain", "Content-Length: 9") + b"x",
    "form": request("POST", "/jobs", "Content-Type: application/x-www-form-urlencoded", "Content-Length: 9") + b"x",
    "multipart": request("POST", "/jobs", "Content-Type: multipart/form-data; boundary=x", "Content-Length: 9") + b"-",
    "batch": request("POST", "/jobs/batch", "Content-Type: application/json", "Content-Length: 90") + b"{",
    "DELETE": request("DELETE", JOB, "Content-Length: 9") + b"x",
    "cancel": request("POST", f"{JOB}/cancel", "Content-Length: 9") + b"x",
    "PUT": request("PUT", "/schedules/x", "Content-Type: application/json", "Content-Length: 9") + b"{",
    "GET": request("GET", "/jobs", "Content-Length: 9") + b"x",
    "GET, events": request("GET", f"{JOB}/events", "Content-Length: 9") + b"x",
    "readyz": request("GET", "/readyz", "Content-Length: 9") + b"x",
    "metrics": request("GET", "/metrics", "Content-Length: 9") + b"x",
    "dashboard": request("POST", "/rq/job/x/delete", "Content-Length: 9") + b"x",
    "docs": request("POST", "/docs", "Content-Length: 9") + b"x",
    "unknown": request("POST", "/nope", "Content-Length: 9") + b"x",
    "unknown method": request("FROB", "/jobs", "Content-Length: 9") + b"x",
    "Expect": HEAD + b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n",
    "Prefer": HEAD + b"Content-Length: 100\r\nPrefer: wait=60\r\n\r\n{",
    "a second request": HEAD + b"Content-Length: 2\r\n\r\n{}" + HEAD + b'Content-Length: 100\r\n\r\n{"p',
}


@pytest.mark.parametrize("kind", HALF)
def test_incomplete_body_is_408_in_time(service: Service, kind: str) -> None:
    with contextlib.closing(connect(service, HALF[kind])) as connection:
        first = answer(connection)
        if first[0] in (100, 202):
            first = answer(connection)
        status, headers, body = first
        assert (status, headers["content-type"], headers["connection"]) == (408, "application/problem+json", "close")
        assert json.loads(body)["status"] == 408
        assert is_closed(connection)


def test_incomplete_bodies_do_not_delay_others(service: Service) -> None:
    kinds = islice(cycle(HALF.values()), 160)
    with many(connect(service, sent) for sent in kinds):
        others_are_served(service)


def test_incomplete_bodies_without_a_key_do_not_delay_others(apart: dict[str, str]) -> None:
    keyed = Service({**apart, "JOBSVC_API_KEYS": "me:admin:k"}, key="k", tune=TUNE)
    try:
        with many(connect(keyed, sent) for sent in islice(cycle(HALF.values()), 160)) as connections:
            for _ in range(5):
                assert keyed.client.post("/jobs", json={}, timeout=ANSWER_SECONDS).status_code == 202
            assert answer(connections[0])[0] == 408
    finally:
        keyed.close()


def test_trickling_bodies_do_not_delay_others(service: Service) -> None:
    """Each byte comes in time, but not all of them."""
    with many(connect(service, HALF["JSON"]) for _ in range(80)) as connections:
        done = threading.Event()

        def trickle() -> None:
            while not done.wait(0.2):
                for connection in connections:
                    with contextlib.suppress(OSError):
                        connection.send(b"a")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            others_are_served(service)
            assert {answer(connection)[0] for connection in connections} <= {408, 0}
        finally:
            done.set()
            thread.join()


def test_larger_body_has_more_time(service: Service) -> None:
    """One second for each 64 KiB: this body may take twice as long as a small one."""
    body = json.dumps({"delay": 600, "payload": {"result": "x" * 4 * 65536}}).encode()
    with contextlib.closing(connect(service, HEAD + b"Content-Length: %d\r\n\r\n" % len(body))) as connection:
        size = len(body) // 12
        for start in range(0, len(body), size):
            connection.sendall(body[start : start + size])
            time.sleep(2 * SECONDS / 12)
        assert answer(connection)[0] == 202


@pytest.mark.parametrize(
    "sent",
    [
        *(b"", b"POST /jo", b"POST /jobs HTTP/1.1\r\nHost: local", HEAD),
        *(request("GET", "/healthz")[:-2], request("GET", "/healthz")),
    ],
    ids=["silent", "half a request line", "half a header", "no end of the head", "half an end", "idle"],
)
def test_idle_connections_are_closed(service: Service, sent: bytes) -> None:
    with many(connect(service, sent) for _ in range(1100)) as connections:
        others_are_served(service)
        assert all(is_closed(connection) for connection in connections)
    others_are_served(service, 1)


GARBAGE = {
    "TLS": bytes.fromhex("16030100c8010000c40303") + os.urandom(190),
    "garbage": os.urandom(3000),
    "null bytes": bytes(3000),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"),
    "a line without end": b"GET /" + b"a" * 1_000_000,
    "headers without end": request("GET", "/")[:-2] + b"X-A: b\r\n" * 50_000,
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n{}",
    "a length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_invalid_http_does_not_delay_others(service: Service, kind: str) -> None:
    def send() -> Iterator[socket.socket]:
        for _ in range(64):
            connection = connect(service)
            with contextlib.suppress(ConnectionError):
                connection.sendall(GARBAGE[kind])
            yield connection

    with many(send()) as connections:
        others_are_served(service)
        assert all(is_closed(connection) for connection in connections)


def test_interrupted_http2_uploads_do_not_delay_others(service: Service) -> None:
    """With prior knowledge: SETTINGS, then HEADERS of a POST and three bytes of its body, then nothing."""
    headers = bytes.fromhex("83860104") + bytes([5]) + b"/jobs" + bytes.fromhex("0f0d03313030")
    frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
    for stream in (1, 3, 5, 7, 9):
        frames += len(headers).to_bytes(3, "big") + b"\x01\x04" + stream.to_bytes(4, "big") + headers
        frames += b"\x00\x00\x03\x00\x00" + stream.to_bytes(4, "big") + b'{"p'
    for _ in range(2):
        connections = [connect(service) for _ in range(20)]
        for connection in connections:
            with contextlib.suppress(ConnectionError):
                connection.sendall(frames)
        for connection in connections:
            reset(connection)
    others_are_served(service)


def test_reset_connections_do_not_delay_others(service: Service) -> None:
    job_id = service.post(delay=600)
    whole = HEAD + b'Content-Length: 13\r\n\r\n{"delay": 600}'[:-1]
    moments = [whole[:n] for n in range(0, len(whole), 7)] + [sent[:-1] for sent in HALF.values()]
    moments += [request("GET", f"/jobs/{job_id}/events"), request("GET", "/jobs?limit=200"), request("GET", "/docs")]
    moments += [request("GET", f"/jobs/{job_id}", "Prefer: wait=60"), request("GET", "/rq/"), request("GET", "/readyz")]
    for pause in (0, 0.01, 0.1):
        connections = [connect(service, sent) for sent in moments]
        time.sleep(pause)
        for connection in connections:
            reset(connection)
        others_are_served(service, 1)


def test_too_large_content_length_is_refused_at_once(service: Service) -> None:
    with contextlib.closing(connect(service, HEAD + b"Content-Length: 2000000\r\n\r\n")) as connection:
        status, headers, body = answer(connection)
        assert (status, headers["content-type"], headers["connection"]) == (413, "application/problem+json", "close")
        assert json.loads(body)["status"] == 413
        assert is_closed(connection)


@pytest.mark.parametrize("path", ["/jobs", "/jobs/batch", JOB, "/rq/", "/docs", "/nope"])
def test_size_of_a_chunked_body_is_limited(service: Service, path: str) -> None:
    with contextlib.closing(connect(service, request("POST", path, "Transfer-Encoding: chunked"))) as connection:
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 1_100_000:
                connection.sendall(b"10000\r\n" + b"a" * 65536 + b"\r\n")
                sent += 65536
        assert answer(connection)[0] == 413
        assert is_closed(connection)


def test_client_that_keeps_sending_receives_the_refusal(service: Service) -> None:
    reply = service.client.post("/jobs", content=b" " * 8_000_000, headers={"Content-Type": "application/json"})
    assert reply.status_code == 413


def test_slow_readers_do_not_delay_others(service: Service) -> None:
    for n in range(2):
        service.post(payload={"result": f"{n}" + "a" * 600_000}, tags=["slow reader"], delay=600)

    def ask() -> Iterator[socket.socket]:
        for _ in range(64):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", service.port))
            connection.sendall(request("GET", "/jobs?tag=slow%20reader"))
            yield connection

    with many(ask()):
        others_are_served(service)


def test_unread_response_closes_its_connection(service: Service) -> None:
    for n in range(10):
        service.post(payload={"result": f"{n}" + "a" * 900_000}, tags=["unread"], delay=600)
    connection = connect(service, request("GET", "/jobs?tag=unread"))
    port = connection.getsockname()[1]
    with contextlib.closing(connection):
        assert connection.recv(10)
        eventually(lambda: port not in [one.raddr[1] for one in open_connections(service)], 20)


def open_connections(service: Service) -> list[Any]:
    """The connections of the process with clients."""
    return [
        one for one in serving_process(service).net_connections("tcp") if one.raddr and one.laddr[1] == service.port
    ]


def test_slow_payload_validation_does_not_delay_others(service: Service) -> None:
    with ThreadPoolExecutor(1) as pool:
        body = {"type": "SLOWLY_CHECKED", "payload": {"seconds": 3}, "delay": 600}
        slow = pool.submit(httpx.post, f"{service.url}/jobs", json=body, timeout=30)
        others_are_served(service)
        assert slow.result().status_code == 202


def test_large_responses_arrive_complete(service: Service) -> None:
    for n in range(10):
        service.post(payload={"result": f"{n}" + "a" * 900_000}, tags=["large"], delay=600)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: service.client.get("/jobs?tag=large"), range(12)))
    assert {(reply.status_code, len(reply.json()["jobs"])) for reply in replies} == {(200, 10)}
    assert {reply.headers.get("connection") for reply in replies} == {"close"}


def may_wait(service: Service, job_id: str, source: str = "127.0.0.1") -> bool:
    """Return True if a client at this address may wait for the job for a second."""
    wait = request("GET", f"/jobs/{job_id}", "Prefer: wait=1")
    with contextlib.closing(connect(service, wait, source)) as connection:
        status, headers, _ = answer(connection)
        assert status == 200
        return "preference-applied" in headers


def take_all_places(service: Service, job_id: str, connections: list[socket.socket], sent: bytes) -> None:
    """Send this on new connections until no slot is free. Some may get the response that Postgres is too slow."""
    connections += [connect(service, sent) for _ in range(256)]
    while may_wait(service, job_id):
        assert len(connections) < 600
        connections += [connect(service, sent) for _ in range(10)]


WHO_WAIT = {
    "GET": request("GET", "{job}", "Prefer: wait=60"),
    "POST": HEAD + b'Prefer: wait=60\r\nContent-Length: 14\r\n\r\n{"delay": 600}',
    "stream": request("GET", "{job}/events"),
}


@pytest.mark.parametrize("kind", WHO_WAIT)
def test_disconnected_waiting_clients_free_their_slots(service: Service, kind: str) -> None:
    job_id = service.post(delay=600)
    sent = WHO_WAIT[kind].replace(b"{job}", f"/jobs/{job_id}".encode())
    for close in (socket.socket.close, reset):
        connections: list[socket.socket] = []
        try:
            take_all_places(service, job_id, connections, sent)
            others_are_served(service, 1)
        finally:
            for connection in connections:
                close(connection)
        eventually(lambda: may_wait(service, job_id), 2 + ANSWER_SECONDS)


def test_slot_is_freed_on_a_reused_connection(service: Service) -> None:
    job_id = service.post(delay=600)
    wait = request("GET", f"/jobs/{job_id}", "Prefer: wait=1")
    connections = [connect(service, wait) for _ in range(32)]
    for connection in connections:
        assert answer(connection)[1]["preference-applied"] == "wait=1"
        connection.sendall(wait.replace(b"wait=1", b"wait=60"))
    try:
        take_all_places(service, job_id, connections, wait.replace(b"wait=1", b"wait=60"))
    finally:
        for connection in connections:
            connection.close()
    eventually(lambda: may_wait(service, job_id), 2 + ANSWER_SECONDS)


def test_one_address_cannot_take_all_slots(service: Service) -> None:
    job_id = service.post(delay=600)
    connections: list[socket.socket] = []
    try:
        take_all_places(service, job_id, connections, request("GET", f"/jobs/{job_id}/events"))
        assert may_wait(service, job_id, "127.0.0.2")
        wait = request("GET", f"/jobs/{job_id}", "Prefer: wait=60")
        with many(connect(service, wait, "127.0.0.2") for _ in range(200)):
            eventually(lambda: not may_wait(service, job_id, "127.0.0.2"))
            assert may_wait(service, job_id, "127.0.0.3")
    finally:
        for connection in connections:
            connection.close()


@pytest.fixture(scope="module")
def small(apart: dict[str, str]) -> Iterator[Service]:
    """A service with little memory for bodies, whose streams end soon."""
    tune = f"{TUNE}\nbodies.SECONDS = 30\nbodies.BUDGET_BYTES = 2**20\nconnection.LONGEST_SECONDS = 2"
    service = Service(apart, tune=tune)
    yield service
    service.close()


def test_stream_ends_after_its_maximum_time(small: Service) -> None:
    """A stream that is not read can't be distinguished from others; an EventSource reconnects."""
    with contextlib.closing(connect(small, request("GET", f"/jobs/{small.post(delay=600)}/events"))) as connection:
        received = b""
        while more := connection.recv(1 << 16):
            received += more
        assert received.endswith(b"0\r\n\r\n")


def test_endless_large_bodies_do_not_delay_others(small: Service) -> None:
    """Others' large bodies are refused while memory is full, but not those of other addresses, nor small ones."""
    part = HEAD + b"Content-Length: 1000000\r\n\r\n" + b" " * 900_000
    body = json.dumps({"delay": 600, "payload": {"result": "a" * 900_000}}).encode()
    whole = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with many(connect(small, part) for _ in range(8)) as connections:
        refused = [connection for connection in connections if is_closed(connection, 3)]
        assert 6 <= len(refused) < 8
        others_are_served(small)
        with contextlib.closing(connect(small)) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(whole)
            status, headers, _ = answer(connection)
            assert (status, headers["content-type"]) == (503, "application/problem+json")
            assert int(headers["retry-after"]) > 0
        with contextlib.closing(connect(small, whole, "127.0.0.2")) as connection:
            assert answer(connection)[0] == 202

    def is_taken() -> bool:
        with contextlib.closing(connect(small)) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(whole)
            return answer(connection)[0] == 202

    eventually(is_taken)


def test_body_of_the_maximum_size_is_accepted(apart: dict[str, str]) -> None:
    large = Service({**apart, "JOBSVC_MAX_BODY_BYTES": str(256 * 2**20)}, tune=TUNE)
    try:
        job_id = large.post(payload={"result": "a" * 100 * 2**20}, delay=600)
        assert len(large.job(job_id)["payload"]["result"]) == 100 * 2**20
    finally:
        large.close()


STALLED = [*HALF.values(), b"", b"POST /jo", HEAD, request("GET", "/healthz")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_no_client_delays_the_shutdown(apart: dict[str, str], number: signal.Signals) -> None:
    """Neither half requests, nor streams, nor waiters; and what is at work is answered."""
    stopping = Service(apart)
    try:
        job_id = stopping.post(delay=600)
        wait = request("GET", f"/jobs/{job_id}", "Prefer: wait=60")
        streams = [connect(stopping, request("GET", f"/jobs/{job_id}/events")) for _ in range(20)]
        for stream in streams:
            assert stream.recv(100)
        waiting = connect(stopping, wait)
        with many(connect(stopping, sent) for sent in STALLED), many(iter([*streams, waiting])):
            assert stopping.client.get("/readyz").status_code == 200
            stopping.api.signal(number)
            assert answer(waiting)[0] == 200
            assert stopping.api.wait(2 + ANSWER_SECONDS) == 0
            eventually(lambda: not stopping.api.tree(), 3)
        assert "Traceback" not in stopping.api.output
    finally:
        stopping.close()


def test_process_ends_when_its_parent_dies(apart: dict[str, str]) -> None:
    orphaned = Service(apart)
    try:
        with many(connect(orphaned, sent) for sent in STALLED):
            worker = serving_process(orphaned)
            os.kill(orphaned.api.popen.pid, signal.SIGKILL)
            orphaned.api.wait()
            eventually(lambda: not orphaned.api.tree(), 2 + 2 * ANSWER_SECONDS)
            assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    finally:
        orphaned.close()


def test_file_limit_is_raised_to_the_hard_limit(apart: dict[str, str]) -> None:
    """1,100 connections are more than the limit that a shell usually sets."""
    code = f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096))\n{TUNE}"
    limited = Service(apart, tune=code)
    try:
        assert serving_process(limited).rlimit(psutil.RLIMIT_NOFILE) == (4096, 4096)
        with many(connect(limited) for _ in range(1100)):
            others_are_served(limited)
    finally:
        limited.close()
