"""`run`: the one function that RQ calls, under any RQ worker, to make one attempt of one job."""

import json
import logging
import math
import time
import traceback
from datetime import datetime
from types import TracebackType
from typing import Any
from uuid import UUID

from rq import Retry, get_current_job
from rq.job import Job as RQJob

from jobsvc import handlers, jobs
from jobsvc.config import settings
from jobsvc.errors import StoreUnavailable
from jobsvc.jobs import Failure, Outcome, Started, Verdict
from jobsvc.models import Ending, Status
from jobsvc.strictjson import clean, unstorable
from jobsvc.watch import AttemptTimeout, Watch

logger = logging.getLogger("jobsvc.worker")

MAX_MESSAGE = 4 * 1024
MAX_TRACEBACK = 64 * 1024


class UnserializableResult(Exception):
    """The handler returned what JSON or Postgres can't hold."""


class UnknownType(Exception):
    """This worker has no handler of the job's type."""


def run(job_id: str) -> Any:
    """Make an attempt of this job, if it waits and is due; else do nothing: another delivery was first.

    Returns the handler's result, for RQ to show. Raises what the handler raised, after handing RQ
    the retry plan that Postgres holds, so that RQ's own Retry brings the next attempt.
    """
    rq_job = get_current_job()
    assert rq_job is not None
    started = jobs.start([UUID(job_id)], rq_job.worker_name or "", settings().JOBSVC_LEASE_SECONDS)
    if not started:
        logger.debug("%s is not waiting, nothing to do", job_id)
        return None
    outcome, error = attempt(started[0])
    verdict = record(outcome)
    _log(started[0], outcome, verdict)
    if verdict is None:
        return None
    if outcome.ending == Ending.SNOOZED:
        return Retry(max=2**31, interval=_until(verdict.due_at))
    if error is None:
        return outcome.result
    _plan_retries(rq_job, verdict)
    raise error


def attempt(started: Started) -> tuple[Outcome, BaseException | None]:
    """Run the handler under its timeout, its lease renewed meanwhile; what it raised comes along with the outcome."""
    watch = Watch(started, give_up=lambda: record(_failed(started, AttemptTimeout(started.timeout))))
    context = handlers.Context(
        str(started.job_id), started.attempt, started.max_attempts, started.fence, watch.progress
    )
    try:
        with watch:
            handler = handlers.find(started.type)
            if handler is None:
                raise UnknownType(f"no handler of the type {started.type} here; there are {handlers.names()}")
            result = _storable(handler(started.payload, context))
        return Outcome(started.job_id, started.fence, Ending.COMPLETED, result, progress=watch.last_progress), None
    except (Exception, AttemptTimeout, SystemExit) as error:
        return _failed(started, error, watch.last_progress), error
    finally:
        watch.close()


def _storable(result: Any) -> Any:
    try:
        plain = json.loads(json.dumps(result, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise UnserializableResult(f"the result is not JSON: {error}") from error
    problems = unstorable(plain)
    if problems:
        raise UnserializableResult(f"the result{problems[0].pointer} {problems[0].detail}")
    return plain


def _failed(started: Started, error: BaseException, progress: dict[str, Any] | None = None) -> Outcome:
    """The outcome of an attempt that ended by an exception."""
    ending, delay = Ending.FAILED, None
    if isinstance(error, handlers.Snooze):
        return Outcome(started.job_id, started.fence, Ending.SNOOZED, delay=error.seconds, progress=progress)
    if isinstance(error, handlers.Discard):
        ending = Ending.DISCARDED
    elif isinstance(error, AttemptTimeout):
        ending = Ending.TIMEOUT
    elif isinstance(error, handlers.RetryIn):
        delay = error.seconds
    lines = "".join(traceback.format_exception(type(error), error, _from_handler(error.__traceback__)))
    failure = Failure(
        "Timeout" if ending == Ending.TIMEOUT else type(error).__name__,
        clean(_text(error)[:MAX_MESSAGE]),
        clean(lines[-MAX_TRACEBACK:]),
    )
    return Outcome(started.job_id, started.fence, ending, failure=failure, delay=delay, progress=progress)


def _from_handler(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without our own frames at its top; all of it where the handler has none."""
    inner = trace
    while inner is not None and inner.tb_frame.f_globals.get("__name__") in (__name__, handlers.Handler.__module__):
        inner = inner.tb_next
    return inner or trace


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"its message can't be shown: {type(broken).__name__}"


def record(outcome: Outcome) -> Verdict | None:
    """Store the outcome, waiting for Postgres as long as that takes; None when the attempt had lost its job."""
    pause = 0.1
    while True:
        try:
            verdicts = jobs.finish([outcome])
            return verdicts[0] if verdicts else None
        except StoreUnavailable as error:
            if pause == 0.1:
                logger.warning("%s: its outcome waits for Postgres: %s", outcome.job_id, error)
            time.sleep(pause)
            pause = min(pause * 2, 5)


def _log(started: Started, outcome: Outcome, verdict: Verdict | None) -> None:
    name = f"{started.type} {started.job_id} attempt {started.attempt} of {started.max_attempts}"
    reason = f" ({outcome.failure.type}: {outcome.failure.message})" if outcome.failure else ""
    if verdict is None:
        logger.warning("%s %s too late: the job had been taken over", name, outcome.ending)
    elif verdict.status in (Status.RETRYING, Status.SCHEDULED):
        logger.info("%s %s, again at %s%s", name, outcome.ending, verdict.due_at.isoformat(" ", "milliseconds"), reason)
    else:
        logger.info("%s %s%s", name, outcome.ending, reason)


def _plan_retries(rq_job: RQJob, verdict: Verdict) -> None:
    """Give RQ's Retry the plan that Postgres holds: how many are left, and when the next is due."""
    left = [math.ceil(interval) for interval in verdict.intervals_left]
    if verdict.status == Status.RETRYING:
        rq_job.retries_left, rq_job.retry_intervals = len(left), [_until(verdict.due_at), *left[1:]]
    else:
        rq_job.retries_left, rq_job.retry_intervals = 0, None


def _until(due_at: datetime) -> int:
    """The seconds until `due_at`, up to the whole second after it: RQ keeps no others, and must not ring early."""
    return max(math.ceil(due_at.timestamp()) - math.floor(time.time()), 0)
