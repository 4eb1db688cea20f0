"""`Prefer: wait=N` (RFC 7240): responses that wait for the end of a job."""

import re
import time
from collections.abc import Callable
from contextlib import closing
from functools import wraps
from typing import ParamSpec
from uuid import UUID

from flask import Response, after_this_request, current_app, request
from werkzeug.http import parse_list_header

from jobsvc import jobs
from jobsvc.api.clients import client_of
from jobsvc.api.job_watcher import JobWatcher
from jobsvc.api.request_limit import outside
from jobsvc.api.responses import dump_job_for_caller
from jobsvc.api.submit import Accepted
from jobsvc.db.models import Job
from jobsvc.errors import JobNotFound, StoreUnavailable
from jobsvc.states import ENDED

P = ParamSpec("P")

LONGEST_WAIT = 60
"""Maximum wait in seconds; a longer one is reduced to this."""

_WAIT = re.compile(r'wait[ \t]*=[ \t]*("?)([0-9]+)\1[ \t]*(;.*)?', re.IGNORECASE | re.DOTALL)


def seconds_preferred(prefer: str) -> int | None:
    """Return the `wait` of a Prefer header (seconds, at most LONGEST_WAIT); None if missing or malformed."""
    for preference in parse_list_header(prefer):
        if re.split("[=;]", preference)[0].strip().lower() == "wait":
            # If a preference is repeated, the first one counts (RFC 7240 §2).
            found = _WAIT.fullmatch(preference)
            return int(min(float(found[2]), LONGEST_WAIT)) if found else None
    return None


def _preferred() -> int | None:
    """Return the seconds that this request prefers to wait, or None. Adds `Vary: Prefer` to the response."""

    @after_this_request
    def vary(response: Response) -> Response:
        response.vary.add("Prefer")
        return response

    return seconds_preferred(request.headers.get("Prefer", ""))


def wait_for_end(job_id: UUID, seconds: int) -> bool | None:
    """Wait for the job's end: True if it ended or was deleted, False after `seconds`, None if the wait was declined.

    It is declined at shutdown, without threads, if no slot is free, or if another client needs the slot.
    Otherwise the response gets Preference-Applied, whether the job ended or not.
    """
    has_ended = False
    if seconds > 0:
        watcher: JobWatcher = current_app.extensions["job_watcher"]
        watch = watcher.watch(job_id, client=client_of(request.environ)) if request.is_multithread else None
        if watch is None:
            return None
        deadline = time.monotonic() + seconds
        with outside(), closing(watch):
            while not has_ended and (latest := watch.next(deadline - time.monotonic())):
                has_ended = latest.has_ended
        if watch.is_over and not has_ended:
            if watch.is_withdrawn:
                return None
            has_ended = True
    _say_honoured(seconds)
    return has_ended


def _say_honoured(seconds: int) -> None:
    @after_this_request
    def applied(response: Response) -> Response:
        response.headers["Preference-Applied"] = f"wait={seconds}"
        return response


def get(job_id: UUID) -> Job:
    """Return the job; if the request prefers to wait, at its end or after the wait. Raises JobNotFound."""
    seconds = _preferred()
    job = jobs.get(job_id)
    if seconds is not None:
        if job.status in ENDED:
            _say_honoured(seconds)
        elif wait_for_end(job_id, seconds) is not None and seconds:
            job = jobs.get(job_id)
    return job


def or_end(view: Callable[P, Accepted]) -> Callable[P, Accepted]:
    """Make a view that accepts a job wait, if the request prefers that, and answer with the whole job if it ended."""

    @wraps(view)
    def waiting_view(*args: P.args, **kwargs: P.kwargs) -> Accepted:
        seconds = _preferred()
        reply, status, headers = view(*args, **kwargs)
        if seconds is None:
            return reply, status, headers
        has_ended = wait_for_end(UUID(reply["jobId"]), seconds)
        if has_ended is None:
            return reply, status, headers
        job = _load(UUID(reply["jobId"])) if has_ended else None
        return (dump_job_for_caller(job), 200, headers) if job else (reply, 202, headers)

    return waiting_view


def _load(job_id: UUID) -> Job | None:
    """Return the job, or None if it can't be read now: it was accepted in any case."""
    try:
        return jobs.get(job_id)
    except (JobNotFound, StoreUnavailable):
        return None
