"""Schedules: one new job at each tick of a cron expression, however many processes check."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from psycopg2.errors import LockNotAvailable
from sqlalchemy import Connection, and_, case, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from jobsvc.db.engine import retrying, transaction
from jobsvc.db.models import Schedule
from jobsvc.db.sql import now, seconds_until
from jobsvc.errors import InvalidInput, Problem, ScheduleNotFound
from jobsvc.handlers.retry_policy import RetryPolicy
from jobsvc.jobs import cron
from jobsvc.jobs.claims import Dispatch
from jobsvc.jobs.conflicts import Submitted, accepted
from jobsvc.jobs.ids import current_time
from jobsvc.jobs.submit import NewJob, store

logger = logging.getLogger("jobsvc.schedules")

RETRY_SECONDS = 60
"""Pause before a schedule that could not tick is tried again."""

TAKEN_SECONDS = 1
"""Pause before a schedule is tried again whose unique key an open transaction holds."""

LOCK_MS = 50
"""Longest time (ms) for which a tick waits for a unique key; a relay has other duties."""


@dataclass(frozen=True)
class NewSchedule:
    """A schedule as requested by a client. `job`: the body as given. `new_job`: the job with all defaults.

    retry: the job's retry policy, if its intervals must be drawn for each job.
    The cron expression and the time zone have passed the checks of `jobs.cron`.
    """

    name: str
    cron: str
    timezone: str
    enabled: bool
    job: dict[str, Any]
    new_job: NewJob
    retry: RetryPolicy | None = None

    def as_row(self) -> dict[str, Any]:
        """Return the schedule's columns as given by the client."""
        new_job = {field: value for field, value in self.new_job._asdict().items() if value is not None}
        if self.retry:
            new_job["retry"] = self.retry.model_dump()
        return {
            "name": self.name,
            "cron": self.cron,
            "timezone": self.timezone,
            "enabled": self.enabled,
            "job": self.job,
            "new_job": new_job,
        }


@retrying
def put(new: NewSchedule) -> tuple[Schedule, bool]:
    """Create the schedule or replace the one with its name; returns it, and True if it was created.

    Its next tick is the first after now, but if cron and time zone don't change, a tick that is due still fires.
    """
    given = new.as_row()
    with transaction() as connection:
        moment = _now(connection)
        given["next_run_at"] = cron.next_tick(new.cron, new.timezone, moment) if new.enabled else None
        wanted = insert(Schedule).values(given)
        keeps_ticks = and_(
            Schedule.enabled,
            wanted.excluded.enabled,
            Schedule.cron == wanted.excluded.cron,
            Schedule.timezone == wanted.excluded.timezone,
        )
        changes: dict[str, Any] = {name: wanted.excluded[name] for name in given if name != "name"}
        changes["next_run_at"] = case((keeps_ticks, Schedule.next_run_at), else_=wanted.excluded.next_run_at)
        upsert = wanted.on_conflict_do_update(index_elements=[Schedule.name], set_=changes).returning(Schedule)
        schedule = Session(connection).scalars(upsert).one()
        return schedule, schedule.created_at == moment


def next_ticks(expression: str, timezone: str, count: int = 5, after: datetime | None = None) -> list[datetime]:
    """Return the first ticks of a cron expression after a moment (default: now), in the time zone.

    Raises InvalidInput with pointers to `cron` and `timezone`, as in the body of a schedule.
    """
    problems = []
    for pointer, check, value in (("/cron", cron.check, expression), ("/timezone", cron.check_timezone, timezone)):
        try:
            check(value)
        except ValueError as error:
            problems.append(Problem(pointer, str(error)))
    if problems:
        raise InvalidInput(problems)
    ticks: list[datetime] = []
    moment = after or current_time()
    for _ in range(count):
        moment = cron.next_tick(expression, timezone, moment)
        ticks.append(moment.astimezone(ZoneInfo(timezone)))
    return ticks


def get(name: str) -> Schedule:
    """Return the schedule. Raises ScheduleNotFound."""
    with transaction() as connection:
        schedule = Session(connection).get(Schedule, name)
    if schedule is None:
        raise _not_found(name)
    return schedule


def every() -> list[Schedule]:
    """Return all schedules, ordered by name."""
    with transaction() as connection:
        return list(Session(connection).scalars(select(Schedule).order_by(Schedule.name)))


@retrying
def remove(name: str) -> None:
    """Delete the schedule, but not its jobs. Raises ScheduleNotFound."""
    with transaction() as connection:
        if not connection.execute(delete(Schedule).where(Schedule.name == name)).rowcount:
            raise _not_found(name)


@retrying
def run(name: str) -> Submitted:
    """Submit the schedule's job now, enabled or not, without changing its ticks.

    Raises ScheduleNotFound, and UniqueKeyConflict as `submit` does.
    """
    with transaction() as connection:
        session = Session(connection)
        schedule = session.get(Schedule, name, with_for_update=True)
        if schedule is None:
            raise _not_found(name)
        [job] = accepted(store(connection, [_new_job(schedule)]))
        schedule.last_run_at, schedule.last_job_id = _now(connection), job.job_id
        session.flush()
        return job


@retrying
def tick(limit: int) -> list[Dispatch]:
    """Submit one job for each of up to `limit` due schedules, however many ticks they have missed.

    Their next tick is the first one after now. Schedules locked by another process are left to it.
    A job that its `on_conflict` refuses is not made, and one whose unique key an open transaction holds is made later.
    Returns the dispatches.
    """
    due = (
        select(Schedule)
        .where(Schedule.enabled, Schedule.next_run_at <= now())
        .order_by(Schedule.next_run_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    with transaction() as connection:
        session = Session(connection)
        moment = _now(connection)
        ready = [(one, job) for one in session.scalars(due) if (job := _advance(one, moment))]
        made = _store(connection, [job for _, job in ready])
        for (schedule, _), one in zip(ready, made, strict=True):
            if one is None:
                schedule.next_run_at = moment + timedelta(seconds=TAKEN_SECONDS)
            elif one.refusal is None:
                schedule.last_run_at, schedule.last_job_id = moment, one.job_id
        session.flush()
    return [one.dispatch for one in made if one and one.dispatch]


def _store(connection: Connection, new: Sequence[NewJob]) -> list[Submitted | None]:
    """Store these jobs; returns None for each whose unique key an open transaction holds, which may last."""
    # Each key by itself, in a fixed order: two relays must not wait for each other (deadlock).
    keyed = sorted(
        (place for place, job in enumerate(new) if job.unique_key is not None),
        key=lambda place: (new[place].type, new[place].unique_key),
    )
    free = [place for place, job in enumerate(new) if job.unique_key is None]
    found: dict[int, Submitted | None] = {}
    if free:
        found.update(zip(free, store(connection, [new[place] for place in free]), strict=True))
    if keyed:
        connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_MS}"))
    for place in keyed:
        found[place] = None
        try:
            with connection.begin_nested():
                [found[place]] = store(connection, [new[place]])
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
    return [found[place] for place in range(len(new))]


def _advance(schedule: Schedule, moment: datetime) -> NewJob | None:
    """Set the schedule's next tick; returns the job to submit now, or None if the schedule can't be evaluated."""
    try:
        job = _new_job(schedule)
        schedule.next_run_at = cron.next_tick(schedule.cron, schedule.timezone, moment)
        return job
    except Exception:
        # Stored by another version, or with other time zone data. The other schedules must still tick.
        logger.exception("the schedule %s can't tick; tried again in %d s", schedule.name, RETRY_SECONDS)
        schedule.next_run_at = moment + timedelta(seconds=RETRY_SECONDS)
        return None


def _new_job(schedule: Schedule) -> NewJob:
    """Return the job to submit. Raises an exception if another version has stored what this one can't read."""
    fields = dict(schedule.new_job)
    if retry := fields.pop("retry", None):
        fields["retry_intervals"] = RetryPolicy.model_validate(retry).intervals()
    return NewJob(**fields)


def seconds_to_next() -> float | None:
    """Return the seconds until the next tick of any schedule, at least 0; None if there is none."""
    with transaction() as connection:
        wait = connection.scalar(select(seconds_until(func.min(Schedule.next_run_at))).where(Schedule.enabled))
    return None if wait is None else max(float(wait), 0.0)


def _now(connection: Connection) -> datetime:
    moment: datetime = connection.execute(select(now())).scalar_one()
    return moment


def _not_found(name: str) -> ScheduleNotFound:
    return ScheduleNotFound(f"no schedule has the name {name}")
