"""Which jobs are meant: the filter that the list and the moves of many jobs share."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, or_

from jobsvc.db.models import Job
from jobsvc.handlers import DELIVERY
from jobsvc.jobs.ids import first_id
from jobsvc.states import WAITING, Status

ID_MARGIN = timedelta(minutes=10)
"""How far the time in an id may be from `created_at`, which decides; the range of ids only keeps the scan short.

Ids are made by Postgres' clock within milliseconds. Versions before 0.2 made them by their host's.
"""


@dataclass(frozen=True)
class Filter:
    """Jobs by what they are; an empty filter means all of them.

    `statuses`: any of them; `tags`: all of them; `created_after` ≤ creation < `created_before`.
    """

    statuses: Sequence[Status] = ()
    type: str | None = None
    queue: str | None = None
    tags: Sequence[str] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """This filter in SQL, to be joined by AND."""
        # Deliveries are meant only where somebody asks for them.
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


# Always true; in the words of the sweep's two indexes, so that Postgres sees that they hold all waiting jobs.
_is_dispatched_or_not = or_(
    Job.dispatched_at >= Job.due_at, Job.dispatched_at.is_(None), Job.dispatched_at < Job.due_at
)


def has_status(status: Status) -> ColumnElement[bool]:
    """That a job has this status, said so that one of the partial indexes fits: COMPLETED is the only common one."""
    is_it = Job.status == status
    return is_it & _is_dispatched_or_not if status in WAITING else is_it
