"""The body of POST /jobs/batch, whose jobs may depend on each other."""

from collections.abc import Iterator
from graphlib import CycleError
from itertools import islice
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from jobsvc.api.fields import EMPTY
from jobsvc.api.requests import JobRequest, plain_job
from jobsvc.api.validation import ID, INNER, MAX_PROBLEMS, check_storable, read_storable
from jobsvc.errors import Problem
from jobsvc.jobs import MAX_DEPENDENCIES, Dependency, NewJob, in_order_of_dependencies

MAX_JOBS = 1000
"""Largest number of jobs in a request."""

MAX_SHOWN = 10
"""Largest number of refs that an error message names."""

MAX_REF = 64
"""Maximum length of a ref."""


def _is_no_id(ref: str) -> str:
    if ID.fullmatch(ref):
        raise ValueError("must not be a UUID, since a UUID in dependsOn is the id of a job")
    return ref


Ref = Annotated[str, Field(min_length=1, max_length=MAX_REF), AfterValidator(_is_no_id)]


class BatchJob(JobRequest):
    """A job of POST /jobs/batch: the body of POST /jobs, and a `ref` by which other jobs of the batch can name it."""

    ref: Ref | None = None
    """A name for this job, unique in the request, for dependsOn of the others."""
    depends_on: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_REF)]], Field(max_length=MAX_DEPENDENCIES)
    ] = EMPTY
    """Ids of jobs, or refs of jobs of this request, that must be COMPLETED first."""


class BatchRequest(BaseModel):
    """The body of POST /jobs/batch."""

    model_config = ConfigDict(strict=True, extra="forbid")

    jobs: Annotated[list[BatchJob], Field(min_length=1, max_length=MAX_JOBS)]

    @field_validator("jobs")
    @classmethod
    def _unique_refs(cls, jobs: list[BatchJob]) -> list[BatchJob]:
        seen: dict[str, int] = {}
        twice = [
            Problem(f"/{n}/ref", f"is the ref of /jobs/{seen[job.ref]}, too")
            for n, job in enumerate(jobs)
            if job.ref is not None and seen.setdefault(job.ref, n) != n
        ]
        _raise_for(twice[:MAX_PROBLEMS])
        return jobs

    @model_validator(mode="after")
    def _check_dependencies(self) -> "BatchRequest":
        if not any(job.depends_on for job in self.jobs):
            return self
        positions = self._positions()
        _raise_for(list(islice(_wrong_names(self.jobs, positions), MAX_PROBLEMS)))
        dependencies = [job.dependencies(positions) for job in self.jobs]
        try:
            in_order_of_dependencies(dependencies)
        except CycleError as error:
            _raise_for([_cycle(self.jobs, dependencies, error.args[1])])
        return self

    def _positions(self) -> dict[str, int]:
        return {job.ref: n for n, job in enumerate(self.jobs) if job.ref is not None}

    def resolve(self) -> list[NewJob]:
        """Return the jobs to store, with the defaults of their handlers, and positions in place of refs."""
        positions = self._positions()
        return [job.resolve(positions) for job in self.jobs]


def read_batch(value: Any) -> list[NewJob]:
    """Return the jobs in this body of POST /jobs/batch. Raises InvalidInput."""
    check_storable(value)
    given = value.get("jobs") if isinstance(value, dict) and len(value) == 1 else None
    if isinstance(given, list) and 0 < len(given) <= MAX_JOBS:
        plain = [job for one in given if (job := plain_job(one))]
        if len(plain) == len(given):
            return plain
    return read_storable(BatchRequest, value).resolve()


def _wrong_names(jobs: list[BatchJob], positions: dict[str, int]) -> Iterator[Problem]:
    for n, job in enumerate(jobs):
        for place, name in enumerate(job.depends_on):
            if not ID.fullmatch(name) and name not in positions:
                detail = f"{name!a} is neither the id of a job nor the ref of a job in this request"
                yield Problem(f"/jobs/{n}/dependsOn/{place}", detail)


def _cycle(jobs: list[BatchJob], dependencies: list[list[Dependency]], positions: list[int]) -> Problem:
    """Return the problem of jobs that depend on each other, given by their positions, each before its dependent."""
    first, second = positions[:2]
    names = [f"{jobs[n].ref!a}" for n in positions[:MAX_SHOWN]] + ["…"] * (len(positions) > MAX_SHOWN)
    pointer = f"/jobs/{second}/dependsOn/{dependencies[second].index(first)}"
    return Problem(pointer, f"the jobs depend on each other; each of these comes before the next: {', '.join(names)}")


def _raise_for(found: list[Problem]) -> None:
    if found:
        context: dict[str, Any] = {INNER: found}
        raise PydanticCustomError("dependencies", "the dependencies are not valid", context)
