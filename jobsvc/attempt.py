"""One attempt: the handler runs under its clock, and how that ended is put into words that can be stored."""

import json
import logging
import traceback
from dataclasses import replace
from types import TracebackType
from typing import Any

from jobsvc import handlers, logs, tracing
from jobsvc.attemptlog import AttemptLog
from jobsvc.clock import AttemptTimeout, Cancelled, Clock, HandBack
from jobsvc.jobs import AttemptEnd, Failure, Started, completed, handed_back
from jobsvc.loglines import Lines, join
from jobsvc.states import Outcome
from jobsvc.strictjson import clean, unstorable

logger = logging.getLogger("jobsvc.worker")

MAX_MESSAGE = 4 * 1024
MAX_RESULT = 16 * 1024 * 1024
MAX_TRACEBACK = 64 * 1024


class UnserializableResult(Exception):
    """The handler returned what JSON or Postgres can't hold."""


class UnknownType(BaseException):
    """There is no handler of the job's type in this process, although its worker has one. No attempt has started."""


UNKNOWN_TYPE_SECONDS = 1.0
"""Pause before such a job is started again."""


def attempt(started: Started, clock: Clock, log: AttemptLog) -> tuple[AttemptEnd, BaseException | None]:
    """Run the handler, in this thread; returns how it ended, and what it raised. Raises nothing itself."""
    job_id = str(started.job_id)
    context = handlers.Context(
        *(job_id, started.attempt, started.max_attempts, started.fence),
        *(clock.progress, log.add, clock.tell_cancelled, started.traceparent),
    )
    with (
        logs.About(job_id, started.type, started.attempt),
        tracing.span("run", "CONSUMER", started.traceparent, type=started.type, job=job_id),
    ):
        try:
            with log, clock:
                handler = handlers.find(started.type)
                if handler is None:
                    raise UnknownType(f"no handler of the type {started.type} in this process")
                result = _storable(handler(started.payload, context))
                if clock.handler_knows:
                    raise Cancelled("the job was cancelled, and its handler returned")
            ended, cause = completed(started.job_id, started.fence, result), None
        except BaseException as error:
            clock.close()
            cause = clock.cause(error)
            tracing.failed(cause)
            ended = failed(started, cause)
        return said(ended, clock, log), cause


def said(end: AttemptEnd, clock: Clock, log: AttemptLog) -> AttemptEnd:
    """The same end, with what the attempt had told of itself until then."""
    return with_lines(replace(end, progress=clock.last_progress) if clock.last_progress else end, log.unsent())


def with_lines(end: AttemptEnd, lines: Lines) -> AttemptEnd:
    """The same end, with these lines among those that come with it."""
    if not lines.lines:
        return end
    joined = join([lines, Lines(end.last_line, end.logs or [])])
    return replace(end, logs=joined.lines, last_line=joined.last)


def _storable(result: Any) -> Any:
    if result is None:
        return None
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


def failed(started: Started, error: BaseException) -> AttemptEnd:
    """The end of an attempt whose handler raised this."""
    if isinstance(error, handlers.Snooze):
        return AttemptEnd(started.job_id, started.fence, Outcome.SNOOZED, delay=error.seconds)
    if isinstance(error, UnknownType):
        logger.error("%s: %s", started.job_id, error)
        return replace(handed_back(started.job_id, started.fence, begun=False), delay=UNKNOWN_TYPE_SECONDS)
    if isinstance(error, HandBack):
        return handed_back(started.job_id, started.fence)
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
