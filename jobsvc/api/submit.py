"""Jobs of a request: stores them, with its Idempotency-Key if it has one, and passes them to the relay.

The header follows draft-ietf-httpapi-idempotency-key-header: a quoted string (RFC 9651 §3.3.3), or unquoted, as most
clients send it.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from flask import current_app, g, request

from jobsvc import jobs, strict_json, tracing
from jobsvc.api.proxy import quote_prefix
from jobsvc.dispatch.relay import Relay
from jobsvc.errors import KeyMalformed
from jobsvc.jobs import NewJob, RequestKey, Submitted

MAX_KEY = 255

_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_BARE = re.compile(r"[!#-+\--:<-\[\]-~]*")  # printable ASCII without the space and " , ; \

_WANTED = (
    f'send one Idempotency-Key of 1 to {MAX_KEY} printable ASCII characters, like "8e03978e-40d5" or 8e03978e-40d5'
)

Accepted = tuple[Mapping[str, Any], int, dict[str, str]]
"""Response of a view: body, status, headers."""

Stored = TypeVar("Stored", bound=Submitted | Exception)


def accept_jobs(new: Sequence[NewJob], store: Callable[[Sequence[NewJob]], list[Stored]], relay: Relay) -> list[Stored]:
    """Store jobs with `store` and pass the due ones to the relay; returns what `store` returns.

    Every POST goes through here: the views with `jobs.submit`, the fast path with `jobs.submit_each`.
    """
    stored = store(new)
    _dispatch(stored, relay)
    return stored


def job_reply(submitted: Sequence[Submitted]) -> tuple[int, dict[str, Any]]:
    """Return status and body of the response to POST /jobs: 200 if another unfinished job has the uniqueKey."""
    [job] = submitted
    return 202 if job.is_new else 200, {"jobId": job.id}


def job_headers(job_id: str, root_path: str = "") -> dict[str, str]:
    """Return the headers of the response to POST /jobs. root_path: the path prefix of the service."""
    return {"Location": f"{quote_prefix(root_path)}/jobs/{job_id}", "Vary": "Prefer"}


MakeReply = Callable[[Sequence[Submitted]], tuple[int, dict[str, Any]]]
"""Returns the status and the body of the response for the submitted jobs."""


def accept(new: Sequence[NewJob], make_reply: MakeReply) -> Accepted:
    """Store the jobs of the request; return the response with the status and body that `make_reply` returns.

    A valid `traceparent` of the request is stored with them. A repeated request with the same Idempotency-Key stores
    nothing and gets the same response. Raises KeyMalformed, KeyInProgress and KeyReused.
    """
    key = _key()
    traceparent = request.headers.get("traceparent")
    if key is None:
        status, body = make_reply(submit(new, traceparent))
        return body, status, {}
    with _traced(new, traceparent) as traced:
        request_key = RequestKey(g.get("caller", ""), key, _fingerprint())
        answer = jobs.submit_once(
            request_key, traced, lambda made: dict(zip(("status", "body"), make_reply(made), strict=True))
        )
    _dispatch(answer.submitted, relay())
    headers = {"Idempotency-Replayed": "true"} if answer.replayed else {}
    return answer.reply["body"], answer.reply["status"], headers


def submit(new: Sequence[NewJob], traceparent: str | None = None) -> list[Submitted]:
    """Store these jobs with the request's traceparent, if it is valid, and pass them to the relay."""
    with _traced(new, traceparent) as traced:
        return accept_jobs(traced, jobs.submit, relay())


@contextmanager
def _traced(new: Sequence[NewJob], header: str | None) -> Iterator[Sequence[NewJob]]:
    """Yield the jobs with the traceparent of a span around the block; without tracing, with the request's."""
    parent = tracing.parse_traceparent(header)
    with tracing.span("accept", "PRODUCER", parent, jobs=len(new)):
        traceparent = tracing.current_traceparent() or parent
        yield [job._replace(traceparent=traceparent) for job in new] if traceparent else new


def relay() -> Relay:
    """Return this process' relay."""
    found: Relay = current_app.extensions["relay"]
    return found


def _dispatch(stored: Sequence[Submitted | Exception], relay: Relay) -> None:
    relay.dispatch([one.dispatch for one in stored if isinstance(one, Submitted) and one.dispatch])


def _key() -> str | None:
    """Return the request's Idempotency-Key, None if it has none. Raises KeyMalformed."""
    sent = request.headers.get("Idempotency-Key")
    if sent is None:
        return None
    value = sent.strip()
    if quoted := _QUOTED.fullmatch(value):
        value = re.sub(r"\\(.)", r"\1", quoted[1])
    elif not _BARE.fullmatch(value):
        raise KeyMalformed(f"{_WANTED}; this one has other characters")
    if not value:
        # Servers drop values that are not ASCII.
        raise KeyMalformed(f"{_WANTED}; this one is empty, or has other characters")
    if len(value) > MAX_KEY:
        raise KeyMalformed(f"{_WANTED}; this one has {len(value)}")
    return value


def _fingerprint() -> str:
    body = strict_json.canonical(request.get_data() or b"{}")
    return hashlib.sha256(f"{request.method} {request.path}\n{body}".encode()).hexdigest()
