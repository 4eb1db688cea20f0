"""`run`: the one function that RQ calls, under any RQ worker, to run one attempt of one job."""

import contextlib
import logging
import math
import signal
import time
from datetime import datetime
from typing import Any
from uuid import UUID

from redis import RedisError
from rq import Retry, get_current_job
from rq.job import Job as RQJob

from jobsvc import handlers, jobs, tracing
from jobsvc.config import settings
from jobsvc.db.engine import disconnect
from jobsvc.dispatch import ownership, rq_workers
from jobsvc.dispatch.enqueue import dispatch_following, handle_refused
from jobsvc.dispatch.rq_names import ours_of
from jobsvc.errors import StoreUnavailable
from jobsvc.execution.attempt import attempt, attempt_async, failed, with_progress_and_logs
from jobsvc.execution.attempt_log import AttemptLog
from jobsvc.execution.attempt_loop import AttemptLoop
from jobsvc.execution.deadline import on_alarm
from jobsvc.execution.results import ResultWriter, Stored, log_results
from jobsvc.execution.watchdog import StandaloneAsyncDeadline, StandaloneDeadline
from jobsvc.jobs import AttemptResult, JobTransition, StartedAttempt
from jobsvc.processes import forks
from jobsvc.processes.timetable import GRACE_SECONDS
from jobsvc.servers.outages import OutageTracker
from jobsvc.states import Outcome, Status

logger = logging.getLogger("jobsvc.worker")

RQ_KILL_SECONDS = 60
"""Time after an entry's timeout at which RQ's worker kills the process that runs it."""

CANCELLED = "Cancelled: the job was cancelled"
"""Text that RQ shows as the traceback of a cancelled attempt."""


class AttemptFailed(Exception):
    """Raised to RQ instead of the handler's exception; contains only its text.

    RQ formats the exceptions that it catches, which may fail for a handler's own.
    """


def warm_up() -> None:
    """Run an attempt's statements without a job, so that they are compiled before the first one."""
    with contextlib.suppress(StoreUnavailable):
        jobs.finish([])
        jobs.start([], "", 1)
    disconnect()


def run(job_id: str) -> Any:
    """Run one attempt of this job if it is waiting and due; else do nothing: another dispatch was first.

    Returns the handler's result, for RQ to show, or a Retry for a snoozed job. Raises StoreUnavailable if the job
    can't be started, and AttemptFailed for a failed attempt, after copying the retry plan from Postgres to RQ:
    RQ shows the next attempt as scheduled, and starts it if no relay does so at the exact time.
    """
    rq_job = get_current_job()
    assert rq_job is not None
    try:
        started = _start(UUID(job_id), rq_job)
    except StoreUnavailable as error:
        logger.warning("%s: not started, will be dispatched again: %s", job_id, error)
        raise
    if not started:
        if ownership.leave_to_owner(rq_job):
            logger.warning("%s: not started, this worker stops: %s", job_id, ownership.NamespaceTaken())
        else:
            handle_refused([UUID(job_id)], rq_job.connection)
            with contextlib.suppress(StoreUnavailable):  # if this was the entry of a job that has been changed since
                jobs.release_due([UUID(job_id)])
        return None
    with contextlib.suppress(StoreUnavailable):  # if the worker started while Postgres was unavailable
        jobs.ensure_registered()
    # Fork: RQ ignores SIGINT here, since its worker handles it; a process forked by the handler gets the defaults.
    forks.be_main_process()
    forks.guard(
        {signal.SIGALRM: (on_alarm, signal.SIG_DFL), signal.SIGINT: (signal.SIG_IGN, signal.default_int_handler)}
    )
    try:
        result, transition = _store(_attempt(started[0]))
        log_results([(started[0], result, transition)])
        if transition:
            dispatch_following([transition], rq_job.connection)
    finally:
        tracing.flush()
    if transition is None:
        return None
    if transition.status == Status.SCHEDULED:  # snoozed
        return Retry(max=2**31, interval=whole_seconds_until(transition.due_at))
    if result.outcome == Outcome.COMPLETED:
        return result.result
    plan_retries(rq_job, transition)
    raise AttemptFailed(failure_text(result))


def _start(job_id: UUID, rq_job: RQJob) -> list[StartedAttempt]:
    """Start the job if its queue is one of this worker's, and if its timeout fits into that of RQ's entry."""
    worker = rq_job.worker_name or ""
    try:
        queues = rq_workers.queues_of(worker, rq_job.connection)
    except RedisError:
        queues = ours_of([rq_job.origin]) or None
    limit = rq_job.timeout if rq_job.timeout and rq_job.timeout > 0 else math.inf
    return jobs.start(
        [job_id],
        worker,
        settings().JOBSVC_LEASE_SECONDS,
        types=handlers.types(),
        queues=queues,
        longest=limit + RQ_KILL_SECONDS - GRACE_SECONDS,
    )


def _attempt(started: StartedAttempt) -> AttemptResult:
    """Run the attempt here, on an event loop of its own if its handler is async."""
    log = AttemptLog()

    def abandon(reason: BaseException) -> None:
        _store(with_progress_and_logs(failed(started, reason), deadline, log))

    deadline: StandaloneDeadline | StandaloneAsyncDeadline
    handler = handlers.find(started.type)
    if handler is None or not handler.is_async:
        deadline = StandaloneDeadline(started, log, abandon)
        return attempt(started, deadline, log)
    loop = AttemptLoop()
    deadline = task_deadline = StandaloneAsyncDeadline(started, log, abandon)

    async def run() -> AttemptResult:
        return await attempt_async(started, task_deadline, log, loop.track(started))

    return loop.run(run())


def _store(result: AttemptResult) -> Stored:
    """Write a result to Postgres; waits while Postgres is unavailable."""
    postgres = OutageTracker("Postgres", StoreUnavailable)
    writer = ResultWriter(postgres)
    while (stored := writer.write([result])) is None:
        time.sleep(postgres.pause)
    return stored[0]


def failure_text(result: AttemptResult) -> str:
    """Return the text that RQ shows for an attempt that did not complete."""
    if result.failure is None:
        return CANCELLED
    return result.failure.traceback or f"{result.failure.type}: {result.failure.message}"


def plan_retries(rq_job: RQJob, transition: JobTransition) -> None:
    """Copy the retry plan from Postgres to RQ's job: how many retries are left, and when the next is due."""
    left = [math.ceil(interval) for interval in transition.intervals_left]
    if transition.status == Status.RETRYING:
        rq_job.retries_left, rq_job.retry_intervals = len(left), [whole_seconds_until(transition.due_at), *left[1:]]
    else:
        rq_job.retries_left, rq_job.retry_intervals = 0, None


def whole_seconds_until(due_at: datetime) -> int:
    """Return the whole seconds until `due_at`, rounded up so that RQ doesn't start the job early."""
    return max(math.ceil(due_at.timestamp()) - math.floor(time.time()), 0)
