"""Processes of the real service, and waiting with a deadline."""

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseServer
from typing import Any, TypeVar

import httpx
import redis
from rq.job import Job as RQJob
from rq.serializers import JSONSerializer

from jobsvc.servers import sentinel
from tests.support.launcher import ROOT, RQ, Launched, can_launch, launcher
from tests.support.servers import sql

T = TypeVar("T")


@contextlib.contextmanager
def serving(server: BaseServer) -> Iterator[None]:
    """The server answers, in a thread, within the block."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def page_server(page: str, host: str = "127.0.0.1") -> Iterator[str]:
    """A server that answers every GET and POST with this page, within the block; its URL, with a slash at its end."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = page.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((host, 0), Handler)
    with serving(server):
        yield f"http://{host}:{server.server_port}/"


def eventually(check: Callable[[], T], timeout: float = 15, pause: float = 0.02) -> T:
    """Return the first true result of `check`; fail with its last result at the deadline."""
    deadline = time.monotonic() + timeout
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s; last seen: {answer!r}")
        time.sleep(pause)


class Process:
    """A process of the service, its output in a file; killed with all that it started when the test is over.

    The file goes with it, unless a folder for it is given.
    """

    def __init__(
        self, *command: str, env: dict[str, str] | None = None, folder: Path | None = None, cwd: Path = ROOT
    ) -> None:
        self.log = Path(tempfile.mkstemp(prefix="jobsvc-log-", dir=folder)[1])
        self._keep_log = folder is not None
        environment = {**os.environ, **(env or {})}
        self.popen: subprocess.Popen[bytes] | Launched
        if can_launch(command, environment):
            self.popen = launcher().start(command, environment, cwd, os.devnull, self.log, self.log)
            return
        with self.log.open("w") as out:
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def tree(self) -> list[int]:
        """The ids of the processes of this one's session, itself included, that live."""
        return [pid for pid, (_, session) in running_processes().items() if session == self.popen.pid]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal as a terminal would, to the whole foreground group."""
        os.killpg(self.popen.pid, number)

    def wait(self, timeout: float = 30) -> int:
        return self.popen.wait(timeout)

    def kill(self) -> None:
        """Kill it with everything that it started, also what has a session of its own."""
        pid, before = self.popen.pid, running_processes()
        below = {pid}
        while found := {one for one, (parent, session) in before.items() if parent in below or session == pid} - below:
            below |= found
        self.popen.kill()  # first, so that it starts nothing again
        self.popen.wait()
        while below:
            for one in below - {pid}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
            below = set(self.tree())
        if not self._keep_log:
            self.log.unlink(missing_ok=True)


def running_processes() -> dict[int, tuple[int, int]]:
    """(parent, session) of every process that lives, by its id, zombies left out; psutil takes 50 ms for that."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                state, parent, _, session, *_ = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                if state != "Z":
                    found[int(name)] = int(parent), int(session)
    return found


POOL = (sys.executable, "worker.py")
STOCK = (RQ, "worker", "-c", "jobsvc.rqsettings", "-S", "json", "-s")
WORKERS = {"pool": POOL, "stock": STOCK}


FIRST_PORT, PORTS_EACH = 12_000, 2_000
"""Ports below those that the kernel gives to outgoing connections; each process that runs tests has its own."""

_tester = int(os.environ.get("PYTEST_XDIST_WORKER", "gw9").removeprefix("gw")) % 10
_ports = itertools.count(random.randrange(PORTS_EACH))


def free_port(_last: int | None = None) -> int:
    """A port of 127.0.0.1 that nothing uses now, and no other test takes before a server listens on it."""
    for number in _ports:
        port = FIRST_PORT + _tester * PORTS_EACH + number % PORTS_EACH
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError


class Service:
    """A running API, and the workers that a test adds to it.

    `tune` is Python that changes `jobsvc.serve` and `events`, the module of the streams, before they serve.
    `prefix` is put in front of the API's command, which is then reached at `address`.
    """

    def __init__(
        self,
        env: dict[str, str] | None = None,
        *,
        key: str | None = None,
        tune: str = "",
        address: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        self.port = free_port(None)
        self.env = {
            "PORT": str(self.port),
            "JOBSVC_HANDLERS": "tests.support.handlers.basic",
            "JOBSVC_HTTP_ALLOW": "127.0.0.1/32",
            **(env or {}),
        }
        self.processes: list[Process] = []
        self.url = f"http://{address}:{self.port}"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.client = httpx.Client(base_url=self.url, timeout=30, headers=headers)
        tuned = f"from jobsvc import serve\nfrom jobsvc.api.routes import events\n{tune}\nserve.main()"
        self.api = self.run(*prefix, sys.executable, *(("-c", tuned) if tune else ("-m", "jobsvc.serve")))
        eventually(self.answers, 20)

    def run(self, *command: str, env: dict[str, str] | None = None) -> Process:
        process = Process(*command, env={**self.env, **(env or {})})
        self.processes.append(process)
        return process

    def worker(self, kind: str = "pool", **env: str) -> Process:
        """Start a worker, and wait until RQ knows it."""
        before = self._workers()
        process = self.run(*WORKERS[kind], env={"JOBSVC_WORKERS": "1", **env})
        eventually(lambda: self._workers() - before or not self.alive(process), 20)
        assert self.alive(process), process.output
        return process

    def alive(self, process: Process) -> bool:
        return process.popen.poll() is None

    def _workers(self) -> set[bytes]:
        with self.redis() as client:
            return set(client.smembers("rq:workers"))

    def redis(self) -> "redis.Redis":
        """A client of the service's own Redis."""
        return sentinel.connect(self.env.get("REDIS_URL") or os.environ["REDIS_URL"])

    def rq_places(self, job_id: str, queue: str = "default") -> list[str]:
        """Where RQ's own keys have this job, one word for each time that it is there."""
        queue = f"{self.env.get('JOBSVC_NAMESPACE', 'jobsvc')}.{queue}"
        with self.redis() as client:
            places = ["queue"] * client.lrange(f"rq:queue:{queue}", 0, -1).count(job_id.encode())
            places += ["running" for one in client.zrange(f"rq:wip:{queue}", 0, -1) if one.startswith(job_id.encode())]
            for place in ("scheduled", "finished", "failed"):
                places += [place] * (client.zscore(f"rq:{place}:{queue}", job_id) is not None)
            return places

    def rq_job(self, job_id: str) -> RQJob:
        """The job as RQ has it."""
        return RQJob.fetch(job_id, connection=self.redis(), serializer=JSONSerializer)

    def answers(self) -> bool:
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx.TransportError:
            assert self.alive(self.api), self.api.output
            return False

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Execute a statement in the service's own database."""
        return sql(self.env.get("DATABASE_URL") or os.environ["DATABASE_URL"], statement, *parameters)

    def post(self, type: str = "TEST_JOB", payload: dict[str, Any] | None = None, **body: Any) -> str:
        """Post a job that has to be accepted; returns its id."""
        reply = self.client.post("/jobs", json={"type": type, "payload": payload or {}, **body})
        assert reply.status_code == 202, reply.text
        return str(reply.json()["jobId"])

    def job(self, job_id: str) -> dict[str, Any]:
        reply = self.client.get(f"/jobs/{job_id}")
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def attempts(self, job_id: str) -> list[dict[str, Any]]:
        return list(self.client.get(f"/jobs/{job_id}/attempts").json()["attempts"])

    def until(self, job_id: str, *statuses: str, timeout: float = 20) -> dict[str, Any]:
        """The job, once it has one of these statuses."""
        seen: dict[str, Any] = {}

        def check() -> dict[str, Any] | None:
            seen.update(self.job(job_id))
            return seen if seen["status"] in statuses else None

        try:
            return eventually(check, timeout)
        except AssertionError:
            raise AssertionError(f"not {statuses} within {timeout} s but {seen}") from None

    def kill_workers(self) -> None:
        """Kill all processes but the API."""
        for process in self.processes[1:]:
            process.kill()
        self.processes[1:] = []

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        self.client.close()
