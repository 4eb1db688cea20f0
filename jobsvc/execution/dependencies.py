"""The results of a job's dependencies, as its handler sees them."""

from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from jobsvc import jobs


class Dependencies(Mapping[str, Any]):
    """The result of each COMPLETED dependency of a job, by id, in the order of `dependsOn`.

    Nothing is kept: each access reads Postgres, so that large results don't add up in memory. Raises StoreUnavailable
    while Postgres is unavailable, which fails the attempt.
    """

    def __init__(self, job_id: str) -> None:
        self._job_id = UUID(job_id)

    def __getitem__(self, job_id: str) -> Any:
        try:
            wanted = UUID(str(job_id))
        except ValueError:
            raise KeyError(job_id) from None
        return jobs.dependency_result(self._job_id, wanted)

    def __iter__(self) -> Iterator[str]:
        return iter(jobs.completed_dependencies(self._job_id))

    def __len__(self) -> int:
        return len(jobs.completed_dependencies(self._job_id))
