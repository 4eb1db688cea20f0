"""What can go wrong, in the domain's words; no HTTP here.

The first line of an error's docstring is its title for people, the text it is raised with is the detail.
"""

from dataclasses import dataclass


class JobsvcError(Exception):
    """Something went wrong in jobsvc."""

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


class KeyMalformed(JobsvcError):
    """The Idempotency-Key can't be read."""


class KeyUnderWay(JobsvcError):
    """The first request with this Idempotency-Key is still under way."""


class KeyReused(JobsvcError):
    """The Idempotency-Key belongs to another request."""


class ScheduleNotFound(JobsvcError):
    """There is no such schedule."""


class QueueNotFound(JobsvcError):
    """There is no such queue."""


class StoreUnavailable(JobsvcError):
    """The database can't be reached now."""

    is_outage = True
    """Whether Postgres itself is unavailable, so that the log shows an outage."""


class StoreBusy(StoreUnavailable):
    """The database is busy."""

    is_outage = False


class StoreConflict(StoreBusy):
    """The database is busy with other requests for the same jobs."""


class WrongServer(StoreUnavailable):
    """The database can't be used."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a request: where in its body (an RFC 6901 JSON pointer), and what.

    The pointer is empty for the body as a whole, and for what is not in it. `parameter` is the name of a query
    parameter, empty for the query as a whole, and None for all that is not in the query.
    """

    pointer: str
    detail: str
    parameter: str | None = None

    def __str__(self) -> str:
        place = f"query parameter {self.parameter}" if self.parameter else self.pointer
        return f"{place}: {self.detail}" if place else self.detail

    def shown(self) -> dict[str, str]:
        """Return it as JSON shows it."""
        if self.parameter is None:
            return {"pointer": self.pointer, "detail": self.detail}
        return {"parameter": self.parameter, "detail": self.detail}


class InvalidInput(JobsvcError):
    """The request doesn't fit its schema."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems
