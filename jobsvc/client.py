"""A client of the jobsvc API. This file can be copied: it needs Python 3.11 and urllib3 2, and nothing of jobsvc."""

import hmac
import json
import os
import random
import time
import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, suppress
from datetime import datetime
from io import TextIOWrapper
from ssl import SSLContext
from typing import Any, Literal, TypedDict, Unpack, cast
from urllib.parse import quote, urlencode, urlsplit

from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.exceptions import HTTPError

TRY_SECONDS = 20.0  # for one try of a request, so that the deadline leaves time for another one
SILENCE_SECONDS = 45.0  # longest silence of an event stream: the service sends something every 15 s

Status = Literal["PENDING", "SCHEDULED", "RETRYING", "BLOCKED", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"]
ENDED = ("COMPLETED", "FAILED", "CANCELLED")

# As in JSON: times are RFC 3339, durations are seconds. docs/api.md explains the fields.
# fmt: off
Progress = TypedDict("Progress", {"percent": float, "message": str | None})
JobError = TypedDict("JobError", {"type": str, "message": str, "attempt": int})
RateLimit = TypedDict("RateLimit", {"key": str, "limit": int, "per": float})
Job = TypedDict("Job", {
    "id": str, "type": str, "payload": dict[str, Any], "status": Status, "queue": str, "tags": list[str],
    "createdAt": str, "runAt": str | None, "startedAt": str | None, "finishedAt": str | None, "expiresAt": str | None,
    "attempts": int, "maxAttempts": int, "retryIntervals": list[float], "nextAttemptAt": str | None, "timeout": float,
    "uniqueKey": str | None, "concurrencyKey": str | None, "rateLimit": RateLimit | None, "dependsOn": list[str],
    "webhookJobId": str | None, "progress": Progress | None, "result": Any, "error": JobError | None,
})
State = TypedDict("State", {
    "id": str, "status": Status, "attempts": int, "progress": Progress | None, "error": JobError | None})
Change = TypedDict("Change", {"event": Literal["status", "progress"], "data": State})
Line = TypedDict("Line", {"attempt": int, "time": str, "level": str, "message": str})
LogLine = TypedDict("LogLine", {"event": Literal["log"], "data": Line})
WebhookMessage = TypedDict("WebhookMessage", {"type": str, "timestamp": str, "data": Job})
NewJob = TypedDict("NewJob", {  # `ref` is for a batch; None stands for the default
    "type": str, "payload": Mapping[str, Any] | None, "queue": str | None, "ref": str, "tags": Sequence[str] | None,
    "delay": float | None, "runAt": str | datetime | None, "expiresIn": float | None, "timeout": float | None,
    "retry": Mapping[str, Any] | None, "uniqueKey": str, "onConflict": Literal["return", "reject", "replace"],
    "concurrencyKey": str, "concurrencyLimit": int, "rateLimit": RateLimit, "webhookUrl": str,
    "dependsOn": Sequence[str], "onDependencyFailure": Literal["cancel", "run"],
}, total=False)
# fmt: on


class ClientError(Exception):
    """Base of the errors of this module."""


class NoResponse(ClientError):
    """There was no response before the deadline. A POST may have been accepted."""


class WebhookError(ClientError):
    """The webhook is too old, or no known secret has signed it."""


class ApiError(ClientError):
    """The service refused the request (RFC 9457). Each of `errors` has `detail`, and `pointer` or `parameter`."""

    def __init__(self, response: BaseHTTPResponse, data: Any, tries: int) -> None:
        problem: Mapping[str, Any] = data if isinstance(data, dict) else {"detail": "The response is not JSON."}
        after = response.headers.get("Retry-After", "")
        self.status, self.title = response.status, str(problem.get("title", response.reason))
        self.detail, self.errors = str(problem.get("detail", "")), list[dict[str, str]](problem.get("errors", []))
        self.job_id: str | None = problem.get("jobId")  # of the job that has the uniqueKey
        self.retry_after, self.tries = float(after) if after.isdecimal() else None, tries
        super().__init__(f"{self.status} {self.title}: {self.detail}")


def verify_webhook(
    secrets: str | Iterable[str], headers: Mapping[str, str], body: bytes, tolerance_seconds: float = 300
) -> WebhookMessage:
    """Return the message of a webhook. Raises WebhookError if it is not signed as Standard Webhooks 1.0 demands.

    secrets: one or several `whsec_…`, or the value of JOBSVC_WEBHOOK_SECRETS. One of them must have signed the body.
    """
    lower = {name.lower(): headers[name] for name in headers}
    sent_at = lower.get("webhook-timestamp", "")
    if not (sent_at.isdecimal() and len(sent_at) < 15 and abs(time.time() - int(sent_at)) <= tolerance_seconds):
        raise WebhookError("webhook-timestamp is missing, too old, or in the future")
    signed = f"{lower.get('webhook-id', '')}.{sent_at}.".encode() + body
    given = [one.encode() for one in lower.get("webhook-signature", "").split()]
    listed = secrets.split(",") if isinstance(secrets, str) else secrets
    keys = [b64decode(one.strip().removeprefix("whsec_"), validate=True) for one in listed]
    if not all(keys):
        raise ValueError("a secret is empty")
    expected = [b"v1," + b64encode(hmac.digest(key, signed, "sha256")) for key in keys]
    if not any(hmac.compare_digest(one, other) for one in given for other in expected):
        raise WebhookError("webhook-signature has no signature by a known secret")
    return cast(WebhookMessage, json.loads(body))


class Client(AbstractContextManager["Client"]):
    """A client of one service, for all threads, and also usable after a fork. Proxies of the environment are not used.

    url: with a path if the service has one. timeout: seconds for a call with all its tries. tls: if the CA is your own.
    """

    verify_webhook = staticmethod(verify_webhook)

    def __init__(self, url: str, api_key: str | None = None, *, timeout: float = 60, tls: SSLContext | None = None):
        if urlsplit(url).scheme not in ("http", "https") or "@" in url or "?" in url:
            raise ValueError("url must begin with http:// or https://, and have no user and no query")
        self._url, self._timeout, self._pid = url.rstrip("/"), timeout, os.getpid()
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._pool = PoolManager(maxsize=100, ssl_context=tls)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept."""
        self._pool.clear()

    def post(self, *, idempotency_key: str = "", **job: Unpack[NewJob]) -> str:
        """Post a job, return its id. idempotency_key: to repeat the call later; else each call has a key of its own."""
        return str(self._post("/jobs", job, idempotency_key)["jobId"])

    def batch(self, jobs: Sequence[NewJob], *, idempotency_key: str = "") -> list[str]:
        """Post up to 1,000 jobs, all or none; return their ids in order."""
        return cast(list[str], self._post("/jobs/batch", {"jobs": jobs}, idempotency_key)["jobIds"])

    def _post(self, path: str, body: Any, key: str) -> Any:
        return self._send("POST", path, body, headers={"Idempotency-Key": key or str(uuid.uuid4())})[1]

    def jobs(self, **filters: Any) -> Iterator[Job]:
        """Yield the jobs that match the parameters of GET /jobs, newest first. A list repeats a parameter."""
        page: Any = {}
        while not page or page["nextCursor"]:
            query = filters | ({"cursor": page["nextCursor"]} if page else {})
            query = {name: json.dumps(one) if isinstance(one, dict) else one for name, one in query.items()}
            page = self._send("GET", f"/jobs?{urlencode(query, doseq=True)}")[1]
            yield from page["jobs"]

    def get(self, job_id: str) -> Job:
        """Return a job."""
        return cast(Job, self._send("GET", _path(job_id))[1])

    def patch(self, job_id: str, **changes: Unpack[NewJob]) -> Job:
        """Change a waiting job: payload, queue, delay, runAt, retry, timeout, expiresIn, tags."""
        return cast(Job, self._send("PATCH", _path(job_id), changes)[1])

    def cancel(self, job_id: str) -> Job:
        """Cancel a job. A running one is returned as PROCESSING, and stops within 5 s."""
        return self._act(job_id, "cancel", is_done=lambda status: status == "CANCELLED")

    def retry(self, job_id: str) -> Job:
        """Retry a FAILED or CANCELLED job."""
        return self._act(job_id, "retry", is_done=lambda status: status not in ("FAILED", "CANCELLED"))

    def _act(self, job_id: str, action: str, is_done: Callable[[Status], bool]) -> Job:
        try:
            return cast(Job, self._send("POST", f"{_path(job_id)}/{action}")[1])
        except ApiError as error:  # perhaps an earlier try has succeeded, and its response was lost
            if error.status == 409 and error.tries > 1 and is_done((job := self.get(job_id))["status"]):
                return job
            raise

    def delete(self, job_id: str) -> None:
        """Delete a job that has ended."""
        try:
            self._send("DELETE", _path(job_id))
        except ApiError as error:
            if error.status != 404 or error.tries == 1:
                raise

    def wait(self, job_id: str, timeout: float = float("inf")) -> Job:
        """Return the job when it has ended. Raises TimeoutError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            prefer = {"Prefer": f"wait={(seconds := int(max(0, min(60, left + 0.05))))}"}
            within = min(left + 1, seconds + self._timeout)
            response, job = self._send("GET", _path(job_id), headers=prefer, within=within)
            if job["status"] in ENDED:
                return cast(Job, job)
            if (left := deadline - time.monotonic()) <= 0:
                raise TimeoutError(f"job {job_id} is {job['status']} after {timeout} s")
            if seconds == 0 or "Preference-Applied" not in response.headers:  # all slots for waiting clients are taken
                time.sleep(min(left, float(response.headers.get("Retry-After", "1"))))

    def events(self, job_id: str, *, logs: bool = False) -> Iterator[Change | LogLine]:
        """Yield the changes of a job, and its log lines, until it has ended. Reconnects when the stream breaks."""
        path, seen = f"{_path(job_id)}/events?logs={str(logs).lower()}", dict[str, str]()
        while (response := self._send("GET", path, headers=seen, is_stream=True)[0]).status != 204:
            fields: dict[str, str] = {}
            with suppress(HTTPError, OSError), closing(response):
                for line in TextIOWrapper(cast(Any, response), "utf-8"):
                    name, _, fields[name] = line.rstrip("\n").partition(": ")
                    if line == "\n" and "data" in fields:
                        seen, data = {"Last-Event-ID": fields["id"]}, json.loads(fields["data"])
                        yield cast(Change | LogLine, {"event": fields["event"], "data": data})
                        if data.get("status") in ENDED:
                            return
                        fields = {}
            time.sleep(random.uniform(0.1, 1))  # noqa: S311

    def _send(
        self, method: str, path: str, body: Any = None, *, headers: Any = (), within: float = 0, is_stream: bool = False
    ) -> tuple[BaseHTTPResponse, Any]:
        """Send a request until it is answered; return the response and its JSON. within: seconds, also for one try."""
        if self._pid != os.getpid():
            self._pool.clear()  # fork: the connections belong to the parent
            self._pid = os.getpid()
        deadline, tries = time.monotonic() + (within or self._timeout), 0
        headers = self._headers | dict(headers) | ({} if body is None else {"Content-Type": "application/json"})
        content = None if body is None else json.dumps(body, default=datetime.isoformat)
        options: Any = {"headers": headers, "body": content, "retries": False, "preload_content": False}
        while True:
            left, tries = max(0.1, deadline - time.monotonic()), tries + 1
            read_seconds = SILENCE_SECONDS if is_stream else min(left, within or TRY_SECONDS)
            pause = min(5.0, 0.1 * 2**tries) * random.uniform(0.5, 1)  # noqa: S311
            try:
                timeout = Timeout(connect=min(left, TRY_SECONDS), read=read_seconds)
                response = self._pool.request(method, self._url + path, timeout=timeout, **options)
                if is_stream and response.status == 200:
                    return response, None
                data: Any = response.data
                with suppress(ValueError):
                    data = json.loads(data)
            except HTTPError as failure:
                error: ClientError = NoResponse(f"{method} {self._url}{path}: {failure} ({tries} tries)")
                is_final = any(
                    isinstance(one, ValueError) for one in (failure, *failure.args)
                )  # wrong URL or certificate
            else:
                if response.status == 204 or (response.status < 300 and not isinstance(data, bytes)):
                    return response, data
                error = found = ApiError(response, data, tries)
                # A 409 of a POST that names no job: an earlier try with its Idempotency-Key is still in progress.
                is_busy = found.status == 409 and "Idempotency-Key" in headers and not (found.job_id or found.errors)
                is_final = found.status not in (429, 502, 503, 504) and not is_busy
                pause += found.retry_after or 0
            if is_final or time.monotonic() + pause > deadline:
                raise error
            time.sleep(pause)


def _path(job_id: str) -> str:
    return f"/jobs/{quote(job_id, safe='')}"
