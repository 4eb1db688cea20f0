"""Jobs with nothing but type, queue and payload are read faster: the same jobs, and no others."""

from typing import Any

import pytest
from pydantic import ValidationError

from jobsvc.api.batch_requests import BatchRequest, read_batch
from jobsvc.api.requests import JobRequest, plain_job
from jobsvc.errors import InvalidInput
from jobsvc.handlers.builtin import http_request, test_job, webhook

__all__ = ["http_request", "test_job", "webhook"]

MESSAGE = {"type": "job.completed", "timestamp": "2026-01-31T12:00:00Z", "data": {}}
PLAIN: list[dict[str, Any]] = [
    {},
    {"type": "TEST_JOB", "payload": {"durationMs": 5, "result": {"a": [1]}}},
    {"type": "HTTP_REQUEST", "payload": {"url": "https://example.com/"}, "queue": "low"},
    {"queue": None},
]
OTHERS: list[Any] = [
    {"type": "TEST_JOB", "delay": 5},
    {"type": "TEST_JOB", "tags": ["a"], "uniqueKey": "a"},
    {"type": "NOPE"},
    {"type": "WEBHOOK", "payload": {"url": "https://example.com/", "body": MESSAGE}},
    {"type": None},
    {"type": ["TEST_JOB"]},
    {"queue": "nope"},
    {"queue": 1},
    {"payload": {"durationMs": "5"}},
    {"payload": []},
    {"payload": None},
    {"type": "HTTP_REQUEST"},
    {"more": 1},
    [],
    None,
]


@pytest.mark.parametrize("body", PLAIN)
def test_plain_job_is_the_one_that_the_model_reads(body: dict[str, Any]) -> None:
    assert plain_job(body) == JobRequest.model_validate(body).resolve()


@pytest.mark.parametrize("body", OTHERS)
def test_job_that_is_invalid_or_has_options_is_left_to_the_model(body: Any) -> None:
    assert plain_job(body) is None


def test_batch_of_plain_jobs_is_the_one_that_the_model_reads() -> None:
    assert read_batch({"jobs": PLAIN}) == BatchRequest.model_validate({"jobs": PLAIN}).resolve()
    mixed = [*PLAIN, OTHERS[0], {"ref": "a"}]
    assert read_batch({"jobs": mixed}) == BatchRequest.model_validate({"jobs": mixed}).resolve()


@pytest.mark.parametrize("jobs", [[*PLAIN, one] for one in OTHERS[2:]] + [[], PLAIN * 251])
def test_invalid_batch_is_refused(jobs: list[Any]) -> None:
    with pytest.raises(ValidationError):
        BatchRequest.model_validate({"jobs": jobs})
    with pytest.raises(InvalidInput):
        read_batch({"jobs": jobs})
    with pytest.raises(InvalidInput):
        read_batch({"jobs": PLAIN, "more": 1})
