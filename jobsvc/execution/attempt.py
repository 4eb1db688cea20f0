"""One attempt of a job: runs the handler under its deadline and returns a result that can be stored."""

import logging
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any

from jobsvc import handlers, logs, tracing
from jobsvc.db.engine import close_idle_connection
from jobsvc.execution import exceptions
from jobsvc.execution.async_deadline import AsyncDeadline
from jobsvc.execution.attempt_log import AttemptLog
from jobsvc.execution.deadline import Deadline
from jobsvc.execution.dependencies import Dependencies
from jobsvc.execution.description import UNKNOWN_TYPE, Description
from jobsvc.execution.interruptions import Cancelled, WorkerShutdown
from jobsvc.execution.leftovers import Leftovers
from jobsvc.execution.result_json import storable
from jobsvc.handlers.retry_policy import YEAR
from jobsvc.jobs import AttemptResult, Failure, StartedAttempt, completed, returned_uncounted
from jobsvc.jobs.log_lines import Lines, join
from jobsvc.states import Outcome

logger = logging.getLogger("jobsvc.worker")

TEXT_SECONDS = 2.0
"""Time limit for describing an exception: its `__str__` may hang. Well below the 10 s of grace after a timeout."""

OWN_MODULES = (__name__, handlers.Handler.__module__)
"""Modules whose frames are omitted at the start of a traceback."""

UNEXPLAINED = Failure(UNKNOWN_TYPE, "the attempt failed, and there was no memory left to say why")
"""Failure of an attempt for which no other one can be built."""

UNKNOWN_TYPE_SECONDS = 1.0
"""Pause before a job is started again if this process lacks a handler of its type, although its worker has one."""


def attempt(started: StartedAttempt, deadline: Deadline, log: AttemptLog) -> AttemptResult:
    """Run the handler in this thread and return the result. Never raises."""
    job_id = str(started.job_id)
    context = _context(job_id, started, deadline, log)
    with logs.AttemptFields(job_id, started.type, started.attempt), _span(job_id, started), log:
        try:
            result = _run(started, deadline, context)
        except BaseException as error:  # the deadline fired before it was paused, or memory ran out
            result = _interpret_safely(started, deadline, error)
        deadline.close()
        _after(context)
        return with_progress_and_logs(result, deadline, log)


async def attempt_async(
    started: StartedAttempt, deadline: AsyncDeadline, log: AttemptLog, leftovers: Leftovers
) -> AttemptResult:
    """Run an async handler in this task and return the result, once `leftovers` are ended. Never raises."""
    job_id = str(started.job_id)
    context = _context(job_id, started, deadline, log)
    with logs.AttemptFields(job_id, started.type, started.attempt), _span(job_id, started), log:
        try:
            result = await _run_async(started, deadline, context)
        except BaseException as error:  # memory ran out
            result = _interpret_safely(started, deadline, error)
        deadline.close()
        await leftovers.end()
        _after(context)
        return with_progress_and_logs(result, deadline, log)


def _context(job_id: str, started: StartedAttempt, deadline: Deadline, log: AttemptLog) -> handlers.Context:
    return handlers.Context(
        job_id=job_id,
        attempt=started.attempt,
        max_attempts=started.max_attempts,
        fence=started.fence,
        report=deadline.progress,
        keep=log.add,
        is_cancelled=deadline.check_cancelled,
        traceparent=started.traceparent,
        dependencies=Dependencies,
    )


def _after(context: handlers.Context) -> None:
    if context.has_read_dependencies:
        with suppress(Exception):
            close_idle_connection()  # there may be hundreds of such processes


def _span(job_id: str, started: StartedAttempt) -> AbstractContextManager[Any]:
    return tracing.span("run", "CONSUMER", started.traceparent, type=started.type, job=job_id)


def _run(started: StartedAttempt, deadline: Deadline, context: handlers.Context) -> AttemptResult:
    try:
        deadline.start()
        handler = handlers.find(started.type)
        if handler is None:
            deadline.pause()
            logger.error("%s: no handler of the type %s in this process", started.job_id, started.type)
            result = returned_uncounted(started.job_id, started.fence, handler_called=False)
            return replace(result, delay=UNKNOWN_TYPE_SECONDS)
        value = storable(handler(started.payload, context))
        deadline.pause()
    except BaseException as error:
        return _interpret(started, deadline, error)
    return _returned(started, deadline, value)


async def _run_async(started: StartedAttempt, deadline: AsyncDeadline, context: handlers.Context) -> AttemptResult:
    try:
        deadline.start()
        handler = handlers.find(started.type)
        assert handler is not None
        try:
            value = storable(await handler.call_async(started.payload, context))
        finally:
            deadline.raise_if_late()
        deadline.pause()
    except BaseException as error:
        return _interpret(started, deadline, error)
    return _returned(started, deadline, value)


def _returned(started: StartedAttempt, deadline: Deadline, value: Any) -> AttemptResult:
    """Return the result of an attempt whose handler returned a value."""
    if deadline.handler_saw_cancel or (deadline.has_fired and isinstance(deadline.reason, Cancelled)):
        return AttemptResult(started.job_id, started.fence, Outcome.CANCELLED)
    return completed(started.job_id, started.fence, value)


def with_progress_and_logs(result: AttemptResult, deadline: Deadline, log: AttemptLog) -> AttemptResult:
    """Return the result with the attempt's last progress and its unsent log lines added."""
    if deadline.last_progress:
        result = replace(result, progress=deadline.last_progress)
    return with_lines(result, log.unsent())


def with_lines(result: AttemptResult, lines: Lines) -> AttemptResult:
    """Return the result with these log lines merged into its own."""
    if not lines.lines:
        return result
    joined = join([lines, Lines(result.last_line, result.logs or [])])
    return replace(result, logs=joined.lines, last_line=joined.last)


def failed(started: StartedAttempt, reason: BaseException) -> AttemptResult:
    """Return the result of an attempt that is ended for `reason` while its handler still runs."""
    texts = Description()
    texts.describe(reason, reason, OWN_MODULES)
    return _result(started, reason, texts, delay=None, has_fired=True)


def _interpret_safely(started: StartedAttempt, deadline: Deadline, error: BaseException) -> AttemptResult:
    try:
        return _interpret(started, deadline, error)
    except BaseException:
        return AttemptResult(started.job_id, started.fence, Outcome.FAILED, failure=UNEXPLAINED)


def _interpret(started: StartedAttempt, deadline: Deadline, error: BaseException) -> AttemptResult:
    """Return the result of an attempt whose handler raised `error`, and drop what `error` refers to.

    Which exception decides:
    1. If the deadline fired while the handler ran (timeout, cancel, shutdown), that is the outcome, even if the handler
       raised something else. A handler that swallows it and returns has completed, except after a cancel.
    2. Otherwise a Discard, Snooze or RetryAfter counts wherever it is in `error`: in a group, as a cause, or as a
       context that `raise … from` has not suppressed. Of several the outermost one counts, which was raised last; at
       the same depth Discard comes before Snooze, and Snooze before RetryAfter.
    3. Otherwise the attempt has failed with `error`.
    """
    deadline.pause()
    has_fired = deadline.has_fired
    subject = deadline.reason if has_fired else error
    delay: float | None = None
    texts = Description(lambda: deadline.is_limit_reached)

    def describe() -> None:
        nonlocal subject, delay
        exceptions.clear_frames(error)
        if has_fired:
            _name_reason(error, deadline.reason)
        elif control := _control(error):
            subject, delay = control
        texts.describe(subject, error, OWN_MODULES)

    with suppress(BaseException):
        try:
            deadline.limited(TEXT_SECONDS, describe)
        except MemoryError:  # again, since cleared frames free memory
            deadline.limited(TEXT_SECONDS, describe)
    with suppress(BaseException):
        tracing.record_failure(texts.type, texts.message, texts.traceback)
    result = _result(started, subject, texts, delay, has_fired)
    with suppress(BaseException):
        exceptions.release(error)
        exceptions.release(deadline.reason)
    return result


def _control(error: BaseException) -> tuple[BaseException, float | None] | None:
    """Return the Discard, Snooze or RetryAfter that counts (see `_interpret`) and its seconds, or None."""
    for level in exceptions.levels(error, with_suppressed=False):
        for kind in (handlers.Discard, handlers.Snooze, handlers.RetryAfter):
            for one in level:
                if exceptions.is_a(one, kind):
                    seconds = None if kind is handlers.Discard else _seconds(one)
                    if kind is handlers.Discard or seconds is not None:
                        return one, seconds
    return None


def _name_reason(error: BaseException, reason: BaseException) -> None:
    """Copy the reason's message to exceptions of its class; ThreadDeadline can only raise the class."""
    for level in exceptions.levels(error, with_suppressed=True):
        for one in level:
            if type(one) is type(reason):
                one.args = reason.args


def _seconds(error: BaseException) -> float | None:
    """Return the seconds of a Snooze or RetryAfter; None if a subclass has set an invalid value."""
    try:
        seconds = float(error.seconds)  # type: ignore[attr-defined]
    except Exception:
        return None
    return seconds if 0 <= seconds <= YEAR else None


def _result(
    started: StartedAttempt, subject: BaseException, texts: Description, delay: float | None, has_fired: bool
) -> AttemptResult:
    """Return the result for this exception. An Interruption counts as one only if the deadline raised it."""
    if has_fired and isinstance(subject, WorkerShutdown):
        return returned_uncounted(started.job_id, started.fence)
    if has_fired and isinstance(subject, Cancelled):
        return AttemptResult(started.job_id, started.fence, Outcome.CANCELLED)
    if delay is not None and exceptions.is_a(subject, handlers.Snooze):
        return AttemptResult(started.job_id, started.fence, Outcome.SNOOZED, delay=delay)
    outcome, name = Outcome.FAILED, texts.type
    if has_fired:
        outcome, name = Outcome.TIMEOUT, "Timeout"
    elif exceptions.is_a(subject, handlers.Discard):
        outcome = Outcome.DISCARDED
    failure = Failure(name, texts.message, texts.traceback)
    return AttemptResult(started.job_id, started.fence, outcome, failure=failure, delay=delay)
