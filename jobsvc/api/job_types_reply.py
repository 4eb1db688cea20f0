"""Response of GET /job-types."""

from typing import Any, NotRequired

from typing_extensions import TypedDict

from jobsvc.handlers import Handler
from jobsvc.handlers.rate_limit import RateLimitPolicy
from jobsvc.handlers.retry_policy import RetryPolicy
from jobsvc.jobs.serialize import RateLimitShown, show_number


class BackoffShown(TypedDict):
    """A backoff, as in the `retry` of a new job."""

    initial: float
    factor: float
    max: float
    jitter: float


class RetryShown(TypedDict):
    """The number of retries, and either the seconds before each, of which the last is repeated, or a backoff."""

    max: int | None
    interval: NotRequired[list[float]]
    backoff: NotRequired[BackoffShown]


class DefaultsShown(TypedDict):
    """The defaults of a job type."""

    queue: str
    timeout: float
    retry: RetryShown
    rateLimit: RateLimitShown | None


class JobTypeShown(TypedDict):
    """A job type; `payloadSchema` is a JSON Schema (2020-12)."""

    name: str
    description: str | None
    payloadSchema: dict[str, Any]
    defaults: DefaultsShown


class JobTypesReply(TypedDict):
    """The job types."""

    jobTypes: list[JobTypeShown]


def dump_job_type(handler: Handler) -> JobTypeShown:
    """Return a job type as in GET /job-types."""
    return {
        "name": handler.name,
        "description": handler.description,
        "payloadSchema": handler.payload_schema(),
        "defaults": {
            "queue": handler.default_queue,
            "timeout": show_number(handler.timeout),
            "retry": _dump_retry(handler.retry),
            "rateLimit": _dump_rate_limit(handler.rate_limit),
        },
    }


def _dump_retry(retry: RetryPolicy) -> RetryShown:
    if backoff := retry.backoff:
        shown: BackoffShown = {
            "initial": show_number(backoff.initial),
            "factor": show_number(backoff.factor),
            "max": show_number(backoff.max),
            "jitter": show_number(backoff.jitter),
        }
        return {"max": retry.max, "backoff": shown}
    return {"max": retry.max, "interval": [show_number(seconds) for seconds in retry.interval or []]}


def _dump_rate_limit(rate: RateLimitPolicy | None) -> RateLimitShown | None:
    return {"key": rate.key, "limit": rate.limit, "per": show_number(rate.per)} if rate else None
