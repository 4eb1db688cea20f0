"""Response bodies of the views, and how to make them; jobs and schedules as the caller may see them."""

from collections.abc import Iterable
from typing import Literal, NotRequired, cast

from typing_extensions import TypedDict

from jobsvc.api.scopes import has_scope
from jobsvc.db.models import Job, Schedule
from jobsvc.dispatch.rq_workers import WorkerState
from jobsvc.jobs import QueueState, Walk
from jobsvc.jobs.serialize import (
    AttemptShown,
    JobShown,
    ScheduleShown,
    Time,
    Uuid,
    dump_job,
    dump_schedule,
    show_time,
)
from jobsvc.masking import mask_job
from jobsvc.states import Status


class JobIdReply(TypedDict):
    """The id of a job."""

    jobId: Uuid


class JobIdsReply(TypedDict):
    """The ids of the jobs, in the order of the request."""

    jobIds: list[Uuid]


class JobPage(TypedDict):
    """A page of jobs, newest first; `nextCursor` is null on the last page."""

    jobs: list[JobShown]
    nextCursor: str | None


class AttemptsReply(TypedDict):
    """The attempts of a job, oldest first."""

    attempts: list[AttemptShown]


class CountReply(TypedDict):
    """The number of jobs that were changed; `nextCursor` if the search for a payload is to go on from there."""

    count: int
    nextCursor: NotRequired[str]


class QueueShown(TypedDict):
    """A queue; `oldestWaitingSeconds` is the longest time that a job has been due, null if none is."""

    name: str
    paused: bool
    counts: dict[Status, int]
    oldestWaitingSeconds: float | None


class QueuesReply(TypedDict):
    """The queues, in the order in which they are served."""

    queues: list[QueueShown]


class WorkerShown(TypedDict):
    """A worker; `jobs` are the ids of the jobs that it runs."""

    name: str
    host: str | None
    pid: int | None
    state: str
    queues: list[str]
    jobs: list[str]
    lastHeartbeat: Time | None


class WorkersReply(TypedDict):
    """The workers."""

    workers: list[WorkerShown]


class SchedulesReply(TypedDict):
    """All schedules, by name."""

    schedules: list[ScheduleShown]


UpOrDown = Literal["up", "down"]
RedisState = Literal["up", "down", "taken"]


class LinksReply(TypedDict):
    """The paths of the service, by name."""

    console: NotRequired[str]
    jobs: str
    jobTypes: str
    schedules: str
    queues: str
    workers: str
    stats: str
    docs: str
    openapi: str
    health: str
    readiness: str
    metrics: str
    dashboard: str


class HealthReply(TypedDict):
    """The process is running."""

    status: Literal["ok"]


class ReadinessReply(TypedDict):
    """The state of the service, of Postgres and of Redis."""

    status: Literal["ok", "unavailable"]
    postgres: UpOrDown
    redis: RedisState


class ProblemShown(TypedDict):
    """One error in a request, at a JSON pointer (RFC 6901) in the body, or in a query parameter."""

    pointer: NotRequired[str]
    parameter: NotRequired[str]
    detail: str


class ProblemReply(TypedDict):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    jobId: NotRequired[Uuid]
    errors: NotRequired[list[ProblemShown]]


def dump_count(counts: Iterable[int], walk: Walk) -> CountReply:
    """Return the sum of the counts, which make the walk, and where it ended."""
    total = sum(counts)
    return {"count": total, "nextCursor": str(walk.next)} if walk.next else {"count": total}


def dump_queue(queue: QueueState) -> QueueShown:
    """Return a queue as in GET /queues."""
    return {
        "name": queue.name,
        "paused": queue.is_paused,
        "counts": dict(queue.counts),
        "oldestWaitingSeconds": None if queue.oldest_waiting is None else round(queue.oldest_waiting, 3),
    }


def dump_worker(worker: WorkerState) -> WorkerShown:
    """Return a worker as in GET /workers."""
    return {
        "name": worker.name,
        "host": worker.host,
        "pid": worker.pid,
        "state": worker.state,
        "queues": worker.queues,
        "jobs": worker.jobs,
        "lastHeartbeat": show_time(worker.last_heartbeat),
    }


def sees_secrets() -> bool:
    """Return True if the caller may see secrets: it has a write or admin key, or there are no keys."""
    return has_scope("write")


def dump_job_for_caller(job: Job) -> JobShown:
    """Return the job as JSON, masked for a caller that may not see secrets."""
    shown = dump_job(job)
    return shown if sees_secrets() else cast(JobShown, mask_job(shown))


def dump_schedule_for_caller(schedule: Schedule) -> ScheduleShown:
    """Return the schedule as JSON, its job masked for a caller that may not see secrets."""
    shown = dump_schedule(schedule)
    return shown if sees_secrets() else {**shown, "job": mask_job(shown["job"])}
