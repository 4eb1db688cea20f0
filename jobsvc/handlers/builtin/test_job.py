"""TEST_JOB: the handler to try the service with."""

import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from jobsvc.handlers.context import Context
from jobsvc.handlers.registry import handler


class TestJob(BaseModel):
    """How long the job runs, whether it fails, and what it returns."""

    __test__ = False  # not a test case, despite its name
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")

    duration_ms: int = Field(0, ge=0, le=86_400_000)
    fail_attempts: int = Field(0, ge=0)
    result: Any = None
    steps: int = Field(1, ge=1, le=1000)


@handler("TEST_JOB")
def test_job(payload: TestJob, ctx: Context) -> Any:
    """Sleep for `durationMs` in `steps` steps, fail the first `failAttempts` attempts, return `result`."""
    for step in range(1, payload.steps + 1):
        if payload.duration_ms:  # a sleep of no time takes 0.1 ms
            time.sleep(payload.duration_ms / payload.steps / 1000)
        if payload.steps > 1:
            ctx.progress(100 * step / payload.steps, f"step {step} of {payload.steps}")
    if ctx.attempt <= payload.fail_attempts:
        raise RuntimeError(f"attempt {ctx.attempt} fails, as asked")
    return payload.result
