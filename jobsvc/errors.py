"""The service's errors, independent of HTTP.

The first line of an error's docstring is its title for users; the message it is raised with is the detail.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID


class JobsvcError(Exception):
    """An error of jobsvc."""

    @property
    def title(self) -> str:
        return (type(self).__doc__ or "").strip().splitlines()[0].rstrip(".")


class ConfigError(JobsvcError):
    """A setting is wrong."""


class HandlerError(JobsvcError):
    """A handler can't be registered."""


class JobNotFound(JobsvcError):
    """There is no such job."""


class WrongState(JobsvcError):
    """The job's status doesn't allow this."""


class VersionMismatch(JobsvcError):
    """The job has another version than the request expects."""


class UniqueKeyTaken(JobsvcError):
    """Another job has the unique key."""


class UniqueKeyConflict(UniqueKeyTaken):
    """Another job has the unique key.

    holder: the id of that job; None if it was part of the same request. refusals: a sentence for each refused job, by
    its place in the request. problems: pointers to them in the body, set by who knows the body.
    """

    def __init__(self, holder: UUID | None, refusals: Mapping[int, str]) -> None:
        super().__init__(next(iter(refusals.values())))
        self.holder, self.refusals = holder, refusals
        self.problems: list[Problem] = []


class KeyMalformed(JobsvcError):
    """The Idempotency-Key is not valid."""


class KeyInProgress(JobsvcError):
    """The first request with this Idempotency-Key is still in progress."""


class KeyReused(JobsvcError):
    """The Idempotency-Key belongs to another request."""


class ScheduleNotFound(JobsvcError):
    """There is no such schedule."""


class QueueNotFound(JobsvcError):
    """There is no such queue."""


class StoreUnavailable(JobsvcError):
    """The database is unavailable."""

    is_outage = True
    """True if Postgres itself is unavailable, so that an outage is logged."""


class StoreBusy(StoreUnavailable):
    """The database is busy."""

    is_outage = False


class StoreConflict(StoreBusy):
    """The database is busy with other requests for the same jobs."""


class WrongServer(StoreUnavailable):
    """The database can't be used."""


@dataclass(frozen=True)
class Problem:
    """One error in a request: its JSON pointer in the body (RFC 6901), and a description.

    pointer: empty for the whole body, and for errors outside the body.
    parameter: the name of a query parameter, empty for the whole query, None for errors outside the query.
    """

    pointer: str
    detail: str
    parameter: str | None = None

    def __str__(self) -> str:
        place = f"query parameter {self.parameter}" if self.parameter else self.pointer
        return f"{place}: {self.detail}" if place else self.detail

    def dump(self) -> dict[str, str]:
        """Return the problem as a JSON object."""
        if self.parameter is None:
            return {"pointer": self.pointer, "detail": self.detail}
        return {"parameter": self.parameter, "detail": self.detail}


class InvalidInput(JobsvcError):
    """The request doesn't fit its schema."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class UnknownDependencies(InvalidInput):
    """A job that another one is to depend on does not exist.

    places: positions of the new job among those of its request, and of the id among its dependencies.
    """

    MAX_SHOWN = 20

    def __init__(self, places: Sequence[tuple[int, int]]) -> None:
        self.places = places[: self.MAX_SHOWN]
        super().__init__(self.problems_at(""))

    def problems_at(self, prefix: str) -> list[Problem]:
        """Return the problems. prefix: pointer to a job, with its position as `{}`."""
        detail = "no job has this id"
        return [Problem(f"{prefix.format(job)}/dependsOn/{place}", detail) for job, place in self.places]
