"""Starts attempts, each under a lease and with a new fence. Of duplicate dispatches only one starts the job."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from psycopg2.errors import LockNotAvailable
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Double,
    Text,
    Uuid,
    any_,
    bindparam,
    cast,
    func,
    null,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError

from jobsvc.db.engine import retrying, statement, transaction
from jobsvc.db.models import Job
from jobsvc.db.sql import now, seconds, seconds_since
from jobsvc.jobs.admission import admit, may_start, paused
from jobsvc.jobs.attempt_results import returned_uncounted
from jobsvc.jobs.counters import Count, Event, counting
from jobsvc.jobs.finish import finish_within
from jobsvc.jobs.ids import learn_clock
from jobsvc.jobs.rate_starts import record_starts
from jobsvc.servers import pgclock
from jobsvc.states import Status

CLOCK_SECONDS = 60
"""Age (seconds) at which a worker samples Postgres' clock again; the clocks drift by 30 ms at most in that time."""

LOCK_MS = 300
"""Longest wait (milliseconds) for a job that another transaction has locked, before the others start without it."""


class StartedAttempt(NamedTuple):
    """A started attempt: what its worker needs to run it, and the fence that `finish` requires."""

    job_id: UUID
    type: str
    payload: dict[str, Any]
    attempt: int
    max_attempts: int
    fence: int
    timeout: float
    queue: str
    waited: float  # seconds, since it was due
    traceparent: str | None = None


# The statement's time, not the transaction's, which may have waited for a key.
_moment = func.statement_timestamp()
_returned = {
    "job_id": cast(Job.id, Text),  # text transfers in half the time
    "type": Job.type,
    "payload": Job.payload,
    "attempt": Job.attempts,
    "max_attempts": Job.max_attempts,
    "fence": Job.fence,
    "timeout": Job.timeout,
    "queue": Job.queue,
    "waited": seconds_since(Job.due_at),
    "traceparent": Job.traceparent,
}
_is_given = Job.id == any_(cast(bindparam("ids", type_=ARRAY(Text)), ARRAY(Uuid)))
_start: Any = (
    update(Job)
    .where(_is_given, *may_start)
    .values(
        status=Status.PROCESSING,
        attempts=Job.attempts + 1,
        fence=Job.fence + 1,
        worker=bindparam("by"),
        started_at=_moment,
        lease_expires_at=_moment + seconds(bindparam("lease", type_=Double)),
        # If it was withheld: its next turn must be dispatched again.
        dispatched_at=func.least(Job.dispatched_at, now()),
        progress=null(),
        cancel_requested_at=null(),
        version=Job.version + 1,
    )
    .returning(*(_returned[name].label(name) for name in StartedAttempt._fields))
)


def _counted(start: Any) -> Any:
    return counting(start, lambda job: Count(Event.STARTED, seconds=job.waited))


# Built once: building takes longer than Postgres takes to execute it.
_types = cast(bindparam("types", type_=ARRAY(Text)), ARRAY(Text))
_is_known = _types.is_(None) | (Job.type == any_(_types))
_queues = cast(bindparam("queues", type_=ARRAY(Text)), ARRAY(Text))
_is_served = _queues.is_(None) | (Job.queue == any_(_queues))
_longest = cast(bindparam("longest", type_=Double), Double)
_has_time = _longest.is_(None) | (Job.timeout <= _longest)
_has_no_key = Job.concurrency_key.is_(None) & Job.rate_key.is_(None)
_fits = (_has_no_key, Job.queue.not_in(paused), _is_known, _is_served, _has_time)
_limits_waiting = select(func.set_config("lock_timeout", str(LOCK_MS), True)).scalar_subquery().is_not(None)
_start_free = _counted(_start.where(*_fits, _limits_waiting))
_unlocked = select(Job.id).where(_is_given).with_for_update(skip_locked=True).cte("unlocked")
_start_unlocked = _counted(_start.where(*_fits, Job.id.in_(select(_unlocked.c.id))))
_start_admitted = _counted(_start)


def start(
    job_ids: Sequence[UUID],
    worker: str,
    lease_seconds: float,
    types: Collection[str] | None = None,
    queues: Collection[str] | None = None,
    longest: float | None = None,
) -> list[StartedAttempt]:
    """Start an attempt of each given job that is waiting, due and not expired; returns the started attempts.

    types: the job types that the worker can run; None for any.
    queues: the queues that the worker serves; None for any. longest: the longest timeout (seconds) that RQ's entry
    allows; None for any. RQ may have an entry from before the job was changed.
    lease_seconds: how long `worker` holds the jobs unless `renew` extends the lease.
    Jobs that have ended, that another dispatch has started, that another transaction keeps locked, or that don't fit
    the worker are skipped. Jobs of other types, of paused queues, or of keys without a free slot are withheld.
    Raises StoreUnavailable: jobs may have started.
    """
    by_text = {str(id_): id_ for id_ in job_ids}
    asked = {"by": worker, "lease": lease_seconds}
    fitting = {"types": None if types is None else list(types), "queues": queues, "longest": longest}
    with statement() as connection:
        started = _start_without_keys(connection, {"ids": list(by_text), **fitting, **asked})
        if not pgclock.is_fresh(CLOCK_SECONDS):  # for the child processes, which don't query Postgres
            learn_clock(connection)
    if len(started) < len(by_text):
        left = set(job_ids) - {by_text[row.job_id] for row in started}
        started = [*started, *_start_others(left, types, _conditions(queues, longest), asked)]
    # The columns come in the order of the fields (see above); by name they would take longer.
    return [StartedAttempt(by_text[id_], *rest) for id_, *rest in started]


def _start_without_keys(connection: Connection, parameters: dict[str, Any]) -> Sequence[Any]:
    try:
        return connection.execute(_start_free, parameters).all()
    except DBAPIError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
    # An application's transaction that replaced a job, for example. What it leaves is dispatched again.
    return connection.execute(_start_unlocked, parameters).all()


def _conditions(queues: Collection[str] | None, longest: float | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if queues is not None:
        conditions.append(Job.queue.in_(queues))
    if longest is not None:
        conditions.append(Job.timeout <= longest)
    return conditions


@retrying
def _start_others(
    left: Collection[UUID],
    types: Collection[str] | None,
    conditions: Sequence[ColumnElement[bool]],
    asked: dict[str, Any],
) -> Sequence[Any]:
    with transaction() as connection:
        admitted = admit(connection, left, types, conditions)
        if not admitted:
            return []
        started = connection.execute(_start_admitted, {"ids": [str(job.job_id) for job in admitted], **asked}).all()
        if any(job.has_rate_limit for job in admitted):
            record_starts(connection, [row.job_id for row in started])
        return started


@retrying
def undo_starts(job_ids: Sequence[UUID], worker: str) -> int:
    """Return the given jobs that `worker` has started to their queues, uncounted; returns how many.

    For starts that Postgres may have committed before a connection broke, so that the worker got no reply.
    Raises StoreUnavailable.
    """
    # Locks by id alone, to wait for a start that is still in progress.
    rows_of = select(Job.id, Job.fence, Job.status, Job.worker).where(Job.id.in_(job_ids)).with_for_update()
    with transaction() as connection:
        found = connection.execute(rows_of)
        started = [job for job in found if (job.status, job.worker) == (Status.PROCESSING, worker)]
        if started:
            finish_within(connection, [returned_uncounted(job.id, job.fence, handler_called=False) for job in started])
    return len(started)
