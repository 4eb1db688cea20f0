"""Response bodies of the views, and how to make them; jobs, attempts and schedules are in `jobs.serialize`."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from jobsvc.config import settings
from jobsvc.dispatch.rq_workers import WorkerState
from jobsvc.handlers import Handler
from jobsvc.jobs import QueueState
from jobsvc.jobs.serialize import AttemptShown, JobShown, ScheduleShown, Time, Uuid, show_number, show_time
from jobsvc.states import Status


class JobIdReply(TypedDict):
    """The id of a job, to ask for it."""

    jobId: Uuid


class JobIdsReply(TypedDict):
    """The ids of the jobs, in the order of the request."""

    jobIds: list[Uuid]


class JobPage(TypedDict):
    """Jobs, the newest first; `nextCursor` is null on the last page."""

    jobs: list[JobShown]
    nextCursor: str | None


class AttemptsReply(TypedDict):
    """A job's attempts, the first one first."""

    attempts: list[AttemptShown]


class CountReply(TypedDict):
    """How many jobs were changed, or told to stop."""

    count: int


class RetryShown(TypedDict):
    """How often, and after which seconds, a failed attempt is tried again."""

    max: int | None
    interval: list[float]


class DefaultsShown(TypedDict):
    """The values of a job that doesn't set them."""

    queue: str
    timeout: float
    retry: RetryShown


class JobTypeShown(TypedDict):
    """A job type; `payloadSchema` is a JSON Schema (2020-12)."""

    name: str
    description: str | None
    payloadSchema: dict[str, Any]
    defaults: DefaultsShown


class JobTypesReply(TypedDict):
    """What can be posted."""

    jobTypes: list[JobTypeShown]


class QueueShown(TypedDict):
    """A queue; `oldestWaitingSeconds` is for how long its longest due job has been waiting, null when none is due."""

    name: str
    paused: bool
    counts: dict[Status, int]
    oldestWaitingSeconds: float | None


class QueuesReply(TypedDict):
    """The queues, in the order in which they are served."""

    queues: list[QueueShown]


class WorkerShown(TypedDict):
    """A worker, as RQ knows it; `jobs` are the ids of those that it runs."""

    name: str
    host: str | None
    pid: int | None
    state: str
    queues: list[str]
    jobs: list[str]
    lastHeartbeat: Time | None


class WorkersReply(TypedDict):
    """The workers that RQ knows."""

    workers: list[WorkerShown]


class SchedulesReply(TypedDict):
    """All schedules, by name."""

    schedules: list[ScheduleShown]


UpOrDown = Literal["up", "down"]
RedisState = Literal["up", "down", "taken"]


class HealthReply(TypedDict):
    """The process runs."""

    status: Literal["ok"]


class ReadinessReply(TypedDict):
    """Whether jobs are accepted, and which servers answer."""

    status: Literal["ok", "unavailable"]
    postgres: UpOrDown
    redis: RedisState


class ProblemShown(TypedDict):
    """One thing that is wrong, and where: an RFC 6901 pointer into the body, or the name of a query parameter."""

    pointer: NotRequired[str]
    parameter: NotRequired[str]
    detail: str


class ProblemReply(TypedDict):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: NotRequired[list[ProblemShown]]


def dump_job_type(handler: Handler) -> JobTypeShown:
    """Return a job type as in GET /job-types."""
    retry = handler.retry
    return {
        "name": handler.name,
        "description": handler.description,
        "payloadSchema": handler.payload_schema(),
        "defaults": {
            "queue": handler.queue or settings().default_queue,
            "timeout": show_number(handler.timeout),
            "retry": {"max": retry.max, "interval": [show_number(seconds) for seconds in retry.interval or []]},
        },
    }


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
