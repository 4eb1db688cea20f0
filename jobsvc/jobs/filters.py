"""Which jobs are meant: the filter that the list and the moves of many jobs share."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement

from jobsvc.models import Job, Status

DELIVERY = "WEBHOOK"
"""The type of the jobs that deliver webhooks; they are meant only where somebody asks for them."""


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
        wanted = [Job.type == self.type if self.type else Job.type != DELIVERY]
        if self.statuses:
            wanted.append(Job.status.in_(self.statuses))
        if self.queue:
            wanted.append(Job.queue == self.queue)
        if self.tags:
            # Said twice, so that Postgres sees the partial index fit.
            wanted += [Job.tags.contains(list(self.tags)), Job.tags != []]
        if self.created_after:
            wanted.append(Job.created_at >= self.created_after)
        if self.created_before:
            wanted.append(Job.created_at < self.created_before)
        return wanted
