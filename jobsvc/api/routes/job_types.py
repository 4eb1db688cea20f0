"""GET /job-types: the types of jobs that clients can post."""

from flask import Blueprint

from jobsvc import handlers
from jobsvc.api.describing import Reply, describe
from jobsvc.api.responses import JobTypesReply, dump_job_type

blueprint = Blueprint("job_types", __name__)


@blueprint.get("/job-types")
@describe({200: Reply("The job types.", JobTypesReply)})
def job_types() -> JobTypesReply:
    """List the job types, each with the JSON Schema of its payload and its defaults."""
    known = [handlers.find(name) for name in handlers.names()]
    return {"jobTypes": [dump_job_type(handler) for handler in known if handler]}
