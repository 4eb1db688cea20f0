"""The filter on jobs, used by the list and by bulk cancel and retry."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, or_

from jobsvc.db.models import Job
from jobsvc.handlers import DELIVERY
from jobsvc.jobs.ids import first_id
from jobsvc.states import WAITING, Status

ID_MARGIN = timedelta(minutes=10)
"""Allowed difference between an id's time and `created_at`. The id range only shortens the scan; `created_at` decides.

Ids follow Postgres' clock within milliseconds. Versions before 0.2 used their host's clock.
"""


@dataclass(frozen=True)
class Filter:
    """Conditions on jobs, all of which must hold; an empty filter matches all but webhook deliveries.

    `statuses`: any of them; `tags`: all of them; `created_after` ≤ creation < `created_before`.
    """

    statuses: Sequence[Status] = ()
    type: str | None = None
    queue: str | None = None
    tags: Sequence[str] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return this filter as SQL conditions, to be joined by AND."""
        # Deliveries match only if their type is given.
        wanted = [Job.type == self.type if self.type else Job.type != DELIVERY]
        if self.statuses:
            wanted.append(or_(*(has_status(status) for status in sorted(set(self.statuses)))))
        if self.queue:
            wanted.append(Job.queue == self.queue)
        if self.tags:
            wanted.append(Job.tags.contains(list(self.tags)))
        if self.created_after:
            wanted.append(Job.created_at >= self.created_after)
            wanted.append(Job.id >= first_id((self.created_after - ID_MARGIN).timestamp()))
        if self.created_before:
            wanted.append(Job.created_at < self.created_before)
            wanted.append(Job.id < first_id((self.created_before + ID_MARGIN).timestamp()))
        return wanted


# Always true. Worded like the sweep's two indexes, so that Postgres can use them for waiting jobs.
_is_dispatched_or_not = or_(
    Job.dispatched_at >= Job.due_at, Job.dispatched_at.is_(None), Job.dispatched_at < Job.due_at
)


def has_status(status: Status) -> ColumnElement[bool]:
    """Return the condition on a status, worded so that a partial index fits; COMPLETED needs none."""
    is_it = Job.status == status
    return is_it & _is_dispatched_or_not if status in WAITING else is_it
