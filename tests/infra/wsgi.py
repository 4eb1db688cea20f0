"""The API under a WSGI server that is not its own."""

import json
import time
from types import TracebackType
from typing import Any

import httpx

from tests.support.service import Process, eventually, free_port

STREAM_HEADERS = {"Accept": "text/event-stream"}


class Site:
    """A WSGI server that serves wsgi:app, and workers where a test adds them.

    `command` may hold `{port}`.
    """

    def __init__(self, env: dict[str, str], *command: str) -> None:
        self.port = free_port(None)
        self.env = {**env, "JOBSVC_WORKERS": "1"}
        self.server = Process(*[one.replace("{port}", str(self.port)) for one in command], env=self.env)
        self.processes = [self.server]
        self.url = f"http://127.0.0.1:{self.port}"
        # uWSGI closes a connection after its answer without saying so, and the next request would meet that.
        self.client = httpx.Client(base_url=self.url, timeout=30, headers={"Connection": "close"})

    def __enter__(self) -> "Site":
        try:
            eventually(self._answers, 40)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self.processes:
            process.kill()
        self.client.close()

    def _answers(self) -> bool:
        assert self.server.popen.poll() is None, self.server.output
        try:
            return self.client.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False

    def run(self, *command: str) -> Process:
        process = Process(*command, env=self.env)
        self.processes.append(process)
        eventually(lambda: "Worker Started" in process.output, 30)
        return process

    def post(self, **body: Any) -> str:
        reply = self.client.post("/jobs", json=body)
        assert reply.status_code == 202, reply.text
        return str(reply.json()["jobId"])

    def status(self, job_id: str) -> str:
        return str(self.client.get(f"/jobs/{job_id}").json()["status"])

    def stop_with_a_stream_open(self, number: int) -> tuple[float, list[str]]:
        """Send a signal to the server while a client follows a job; returns the seconds until it ended, and the
        statuses that the client received."""
        job_id = self.post(delay=600)
        reported = []
        self.client.close()  # gunicorn waits 2 s for clients that keep their connection
        url = f"{self.url}/jobs/{job_id}/events"
        with httpx.stream("GET", url, headers=STREAM_HEADERS, timeout=60) as reply:
            assert reply.status_code == 200
            lines = reply.iter_lines()
            for line in lines:
                if line.startswith("data:"):
                    reported.append(json.loads(line[5:])["status"])
                    break
            began = time.monotonic()
            self.server.popen.send_signal(number)
            for _ in lines:
                pass
        self.server.wait(60)
        return time.monotonic() - began, reported
