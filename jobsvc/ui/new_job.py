"""The form that posts a job: its fields come from the schemas of POST /jobs and of the handler's payload."""

from typing import Any

from flask import Response, abort, request

from jobsvc import handlers, jobs
from jobsvc.api.requests import DEFAULT_TYPE, JobRequest
from jobsvc.api.responses import dump_job_for_caller
from jobsvc.api.validation import read_id
from jobsvc.ui import links
from jobsvc.ui.console import blueprint, may, show
from jobsvc.ui.forms import fields_of, payload_fields

COPIED = ("queue", "timeout", "uniqueKey", "concurrencyKey", "tags")
"""The options of a job that its copy gets."""


@blueprint.get("/new")
def new_job() -> Response:
    """Show the form for a job of a type, or for a copy of another job."""
    if not may("write"):
        abort(403, "This requires a key with the scope write.")
    given = request.args
    like: dict[str, Any] = dict(dump_job_for_caller(jobs.get(read_id(given["like"])))) if "like" in given else {}
    type_ = given.get("type") or like.get("type", DEFAULT_TYPE)
    handler = handlers.find(type_)
    if handler is None or type_ not in handlers.names():
        abort(404, f"There is no job type {type_[:100]!a} that can be posted.")
    schema = JobRequest.model_json_schema()
    options = {name: one for name, one in schema["properties"].items() if name not in ("type", "payload")}
    return show(
        "new",
        "New job",
        links.curl("/jobs", method="POST", body={"type": type_}),
        type=type_,
        types=handlers.names(),
        description=handler.description,
        fields=payload_fields(handler.payload_schema(), like.get("payload")),
        options=fields_of({**schema, "properties": options}, "", {name: like.get(name) for name in COPIED}),
        post=links.curl("/jobs", method="POST"),
    )
