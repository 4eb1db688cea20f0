"""GET /job-types: the types of jobs that clients can post."""

from flask import Blueprint

from jobsvc import handlers
from jobsvc.api.describing import Reply, describe
from jobsvc.api.responses import JobTypeShown, JobTypesReply
from jobsvc.api.validation import no_query
from jobsvc.config import settings
from jobsvc.handlers import Handler
from jobsvc.jobs.serialize import show_number

blueprint = Blueprint("job_types", __name__)
blueprint.before_request(no_query)


@blueprint.get("/job-types")
@describe({200: Reply("The types.", JobTypesReply)})
def job_types() -> JobTypesReply:
    """List the job types that a client can post, each with the schema of its payload and its defaults."""
    known = [handlers.find(name) for name in handlers.names()]
    return {"jobTypes": [_dump(handler) for handler in known if handler]}


def _dump(handler: Handler) -> JobTypeShown:
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
