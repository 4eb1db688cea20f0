"""Supervision of a worker's running jobs: timeouts, cancels and shutdown."""

import logging
import math
import time
from collections.abc import Collection

from jobsvc.config import settings
from jobsvc.execution.attempt import failed
from jobsvc.execution.interruptions import (
    CANCEL_GRACE_SECONDS,
    CANCEL_NOTICE_SECONDS,
    AttemptTimeout,
    Cancelled,
    WorkerShutdown,
)
from jobsvc.jobs import AttemptResult, lost, returned_uncounted
from jobsvc.processes.timetable import CLEANUP_SECONDS, GRACE_SECONDS
from jobsvc.worker.child import ChildProcess
from jobsvc.worker.child_pool import ChildPool
from jobsvc.worker.messages import Cancel, Interrupt, SendPartialResult
from jobsvc.worker.running import Phase, RunningJob

logger = logging.getLogger("jobsvc.worker")

CHECK_SECONDS = 0.05
"""Seconds between calls of `check_all`."""

SHORT_DRAIN_SECONDS = 1.0
"""Grace period for the other jobs in a child process that will be killed, if a handler ignored a cancel, or if it is
an async one, which may block the loop of the others."""

PARTIAL_RESULT_SECONDS = 0.5
"""Time for a child process to send the logs of a handler that won't stop, before it is killed."""


def check_all(running: Collection[RunningJob], children: ChildPool, stop_at: float) -> None:
    """Do what is due for these jobs and the child processes that run them.

    stop_at: when (monotonic seconds) to return running jobs; if finite, unstarted jobs are returned at once.
    """
    for child in children:
        child.check_progress(is_busy=any(one.called_at for one in running if one.child is child))
    for one in running:
        _check(one, stop_at)
    for child in children:
        if time.monotonic() >= stop_at + CLEANUP_SECONDS:
            child.close_by(0.0)
        here = [one for one in running if one.child is child]
        if child.is_usable:
            continue
        if not here:
            children.dismiss(child)
        elif _is_to_be_killed(child, here):
            child.kill()


def _check(job: RunningJob, stop_at: float) -> None:
    now, child, phase = time.monotonic(), job.child, job.update_phase()
    match phase:
        case Phase.WAITING if job.is_cancel_requested or stop_at < math.inf or child.is_stuck:
            child.return_unstarted()
        case Phase.RUNNING | Phase.STOPPING if now >= job.called_at + job.started.timeout + GRACE_SECONDS:
            drain_seconds = SHORT_DRAIN_SECONDS if job.is_async else settings().JOBSVC_SHUTDOWN_SECONDS
            _kill(job, AttemptTimeout(job.started.timeout), drain_seconds)
        case Phase.RUNNING if job.is_cancel_requested:
            job.move(Phase.STOPPING)
            job.stop_by = now + CANCEL_NOTICE_SECONDS + CANCEL_GRACE_SECONDS
            child.send(Cancel(job.slot))
        case Phase.RUNNING if now >= stop_at:
            job.move(Phase.STOPPING)
            job.stop_by = stop_at + CLEANUP_SECONDS
            child.send(Interrupt(job.slot))
        case Phase.STOPPING if now >= job.stop_by:
            is_cancel = job.is_cancel_requested
            reason = Cancelled("the job was cancelled") if is_cancel else WorkerShutdown("the worker shut down")
            _kill(job, reason, SHORT_DRAIN_SECONDS)
        case Phase.STOPPING if stop_at < math.inf and now >= job.stop_by - PARTIAL_RESULT_SECONDS:
            # Now, since at a shutdown there is no time for it later.
            if not job.is_partial_result_requested:
                job.is_partial_result_requested = True
                child.send(SendPartialResult(job.slot))


def _kill(job: RunningJob, reason: BaseException, drain_seconds: float) -> None:
    """End the process of a handler that did not stop; other jobs there have `drain_seconds` to finish."""
    logger.error("attempt: did not stop when interrupted, its process is killed (job %s)", job.started.job_id)
    job.move(Phase.KILLING)
    job.kill_reason, job.stop_by = reason, time.monotonic() + PARTIAL_RESULT_SECONDS
    job.child.close_by(time.monotonic() + drain_seconds)
    job.child.send(SendPartialResult(job.slot))
    job.child.return_unstarted()


def result_of_exit(job: RunningJob, stop_at: float) -> AttemptResult:
    """Return the result of a job whose child process has died. stop_at: as in `check_all`."""
    job_id, fence, is_waiting = job.started.job_id, job.started.fence, job.phase is Phase.WAITING
    is_ended_by_us = job.child.kill_at < math.inf
    if job.partial_result and (job.kill_reason or is_ended_by_us):  # sent unasked by a handler that blocks its loop
        return job.partial_result
    if job.kill_reason:
        return failed(job.started, job.kill_reason)
    # We killed the process because of another job, or a handler ended it when it was interrupted at a shutdown.
    if is_waiting or is_ended_by_us or time.monotonic() >= stop_at:
        return returned_uncounted(job_id, fence, handler_called=not is_waiting)
    return lost(job_id, fence, "the process of the attempt died before it ended")


def _is_to_be_killed(child: ChildProcess, running: Collection[RunningJob]) -> bool:
    """Return True if only handlers that did not stop run there, or the time of all others is up."""
    now = time.monotonic()
    return now >= child.kill_at or all(
        one.phase is Phase.KILLING and (one.partial_result or now >= one.stop_by) for one in running
    )
