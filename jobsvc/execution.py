"""`run`: the one function that RQ calls, under any RQ worker, to make one attempt of one job."""

import contextlib
import json
import logging
import math
import mmap
import time
import traceback
from dataclasses import replace
from datetime import datetime
from types import TracebackType
from typing import Any
from uuid import UUID

from redis import Redis
from rq import Retry, get_current_job
from rq.job import Job as RQJob

from jobsvc import handlers, jobs, logs, tracing
from jobsvc.attemptlog import AttemptLog
from jobsvc.config import settings
from jobsvc.db import engine
from jobsvc.errors import StoreUnavailable
from jobsvc.jobs import AttemptEnd, Dispatch, Failure, Started, Verdict
from jobsvc.pushing import push
from jobsvc.states import WAITING, Outcome, Status
from jobsvc.strictjson import clean, unstorable
from jobsvc.watch import AttemptTimeout, Cancelled, HandBack, Watch

logger = logging.getLogger("jobsvc.worker")

MOST_PLACES = 1000
"""No concurrency key has more."""

MAX_MESSAGE = 4 * 1024
MAX_RESULT = 16 * 1024 * 1024
MAX_TRACEBACK = 64 * 1024

ASIDE = "aside"
"""The key in the RQ job's `meta` by which `run` tells its worker that RQ's job is not this execution's to write."""

outcome_waits = mmap.mmap(-1, 1)
"""1 while an outcome waits for Postgres, for the process that watches over this one. A worker makes one of its own."""


class UnserializableResult(Exception):
    """The handler returned what JSON or Postgres can't hold."""


class UnknownType(Exception):
    """This worker has no handler of the job's type."""


def warm_up() -> None:
    """Run an attempt's statements for no job, so that processes forked from this one inherit them compiled."""
    with contextlib.suppress(StoreUnavailable):
        jobs.finish([])
        jobs.start([], "", 1)
    engine().dispose()


def run(job_id: str) -> Any:
    """Make an attempt of this job, if it waits and is due; else do nothing: another dispatch was first.

    Returns the handler's result, for RQ to show. Raises what the handler raised, after giving RQ's
    Retry the plan that Postgres holds: RQ schedules the next attempt, shows it meanwhile, and
    starts it if no relay was there to do so at the exact time.
    """
    rq_job = get_current_job()
    assert rq_job is not None
    outcome_waits[0] = 0
    try:
        started = jobs.start([UUID(job_id)], rq_job.worker_name or "", settings().JOBSVC_LEASE_SECONDS)
    except StoreUnavailable as away:
        logger.warning("%s was not started, and will be dispatched again: %s", job_id, away)
        raise
    if not started:
        rq_job.meta[ASIDE] = True
        return None
    try:
        with (
            logs.about(started[0].job_id, started[0].type, started[0].attempt),
            tracing.span("run", "CONSUMER", started[0].traceparent, type=started[0].type, job=job_id),
        ):
            end, error = attempt(started[0])
            if error is not None:
                tracing.failed(error)
            verdict = record(end)
            _log(started[0], end, verdict)
            if verdict and verdict.concurrency_key:
                let_next_in(verdict.concurrency_key, rq_job.connection)
    finally:
        tracing.flush()
    if verdict is None or end.outcome == Outcome.HANDED_BACK:
        rq_job.meta[ASIDE] = True
        return None
    if verdict.status == Status.SCHEDULED:  # snoozed
        return Retry(max=2**31, interval=_until(verdict.due_at))
    if error is None:
        return end.result
    _plan_retries(rq_job, verdict)
    raise error


def attempt(started: Started) -> tuple[AttemptEnd, BaseException | None]:
    """Run the handler under its timeout, its lease renewed meanwhile; returns how it ended, and what it raised."""
    log = AttemptLog()
    watch = Watch(started, give_up=lambda reason: record(end(_failed(started, reason))))
    context = handlers.Context(
        *(str(started.job_id), started.attempt, started.max_attempts, started.fence),
        *(watch.progress, log.add, watch.tell_cancelled, started.traceparent),
    )

    def end(how: AttemptEnd) -> AttemptEnd:
        return replace(how, progress=watch.last_progress, logs=log.lines())

    try:
        with log.kept(), watch:
            handler = handlers.find(started.type)
            if handler is None:
                raise UnknownType(f"no handler of the type {started.type} here; there are {handlers.names()}")
            result = _storable(handler(started.payload, context))
            if watch.handler_knows:
                raise Cancelled("the job was cancelled, and its handler returned")
        return end(AttemptEnd(started.job_id, started.fence, Outcome.COMPLETED, result)), None
    except BaseException as error:
        return end(_failed(started, error)), error
    finally:
        watch.close()


def _storable(result: Any) -> Any:
    try:
        text = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnserializableResult(f"the result is not JSON: {error}") from error
    if len(text) > MAX_RESULT:
        raise UnserializableResult(f"the result takes more than {MAX_RESULT} bytes of JSON")
    plain = json.loads(text)
    for problem in unstorable(plain):
        raise UnserializableResult(f"the result{problem.pointer} {problem.detail}")
    return plain


def _failed(started: Started, error: BaseException) -> AttemptEnd:
    """The end of an attempt whose handler raised."""
    if isinstance(error, handlers.Snooze):
        return AttemptEnd(started.job_id, started.fence, Outcome.SNOOZED, delay=error.seconds)
    if isinstance(error, HandBack):
        return AttemptEnd(started.job_id, started.fence, Outcome.HANDED_BACK, delay=0)
    if isinstance(error, Cancelled):
        return AttemptEnd(started.job_id, started.fence, Outcome.CANCELLED)
    outcome, name = Outcome.FAILED, type(error).__name__
    if isinstance(error, handlers.Discard):
        outcome = Outcome.DISCARDED
    elif isinstance(error, AttemptTimeout):
        outcome, name = Outcome.TIMEOUT, "Timeout"
    lines = "".join(traceback.format_exception(type(error), error, _from_handler(error.__traceback__)))
    failure = Failure(name, clean(_text(error)[:MAX_MESSAGE]), clean(lines[-MAX_TRACEBACK:]))
    delay = error.seconds if isinstance(error, handlers.RetryIn) else None
    return AttemptEnd(started.job_id, started.fence, outcome, failure=failure, delay=delay)


def _from_handler(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without our own frames at its top; all of it where the handler has none."""
    inner = trace
    while inner is not None and inner.tb_frame.f_globals.get("__name__") in (__name__, handlers.Handler.__module__):
        inner = inner.tb_next
    return inner or trace


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as broken:
        return f"its message can't be shown: {type(broken).__name__}"


def record(end: AttemptEnd) -> Verdict | None:
    """Store how an attempt ended, waiting for Postgres as long as that takes; None when it had lost its job.

    An end that Postgres refuses to hold is stored as a failure of its own.
    """
    pause = 0.1
    while True:
        try:
            verdicts = jobs.finish([end])
            return verdicts[0] if verdicts else None
        except StoreUnavailable as error:
            outcome_waits[0] = 1
            if pause == 0.1:
                logger.warning("%s: its outcome waits for Postgres: %s", end.job_id, error)
            time.sleep(pause)
            pause = min(pause * 2, 1)
        except Exception as error:
            logger.exception("%s: its outcome can't be stored", end.job_id)
            refused = Failure(UnserializableResult.__name__, f"the outcome can't be stored: {type(error).__name__}")
            if end.failure == refused:
                raise
            end = AttemptEnd(end.job_id, end.fence, Outcome.FAILED, failure=refused)


def let_next_in(key: str, connection: Redis) -> None:
    """Dispatch who waits for a place of this concurrency key, now that one is free; or else a sweep does so."""
    following: list[Dispatch] = []
    try:
        following = jobs.claim_next([key], MOST_PLACES)
        push(following, connection)
    except Exception as error:
        # The job has ended, whatever becomes of the next one.
        logger.warning("who waits for the concurrency key %r waits for a sweep: %s", key, error)
        with contextlib.suppress(StoreUnavailable):
            if following:
                jobs.release(one.job_id for one in following)


def _log(started: Started, end: AttemptEnd, verdict: Verdict | None) -> None:
    name = f"{started.type} {started.job_id} attempt {started.attempt} of {started.max_attempts}"
    reason = f" ({end.failure.type}: {end.failure.message})" if end.failure else ""
    if verdict is None:
        logger.warning("%s %s, but the job was no longer this worker's", name, end.outcome)
    elif verdict.status in WAITING:
        logger.info("%s %s, again at %s%s", name, end.outcome, verdict.due_at.isoformat(" ", "milliseconds"), reason)
    else:
        logger.info("%s %s%s", name, end.outcome, reason)


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
