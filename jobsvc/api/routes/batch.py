"""/jobs/batch: many jobs in one request, all or none."""

from collections.abc import Sequence
from typing import Any

from flask import Blueprint

from jobsvc.api.auth import needs
from jobsvc.api.describing import Reply, describe
from jobsvc.api.requests import BatchRequest
from jobsvc.api.responses import JobIdsReply
from jobsvc.api.submit import Accepted, accept
from jobsvc.api.validation import body
from jobsvc.jobs import Submitted

blueprint = Blueprint("batch", __name__)


@blueprint.post("/jobs/batch")
@needs("write")
@describe(
    {202: Reply("All jobs were accepted.", JobIdsReply, ("Idempotency-Replayed",))},
    takes=BatchRequest,
    asks=("Idempotency-Key",),
    errors=(409,),
    examples={"Two jobs": {"jobs": [{"type": "TEST_JOB"}, {"type": "TEST_JOB", "queue": "low"}]}},
)
def create_batch() -> Accepted:
    """Create many jobs: all of them or none."""
    return accept([job.resolve() for job in body(BatchRequest).jobs], _reply)


def _reply(submitted: Sequence[Submitted]) -> tuple[int, dict[str, Any]]:
    return 202, {"jobIds": [str(job.job_id) for job in submitted]}
