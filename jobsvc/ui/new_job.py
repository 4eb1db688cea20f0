"""The form that posts a job: its fields come from the schemas of POST /jobs and of the handler's payload."""

import json
from functools import cache
from typing import Any

from flask import Response, abort, request

from jobsvc import handlers, jobs
from jobsvc.api.patch_job import PatchJob
from jobsvc.api.requests import DEFAULT_TYPE, JobRequest
from jobsvc.api.scopes import has_scope
from jobsvc.api.validation import read_id
from jobsvc.db.models import Job
from jobsvc.ui import links
from jobsvc.ui.console import blueprint, show
from jobsvc.ui.formats import MAX_TEXT
from jobsvc.ui.forms import Field, fields_of, payload_fields


@blueprint.get("/new")
def new_job() -> Response:
    """Show the form for a job of a type, or for a copy of another job."""
    if not has_scope("write"):
        abort(403, "This requires a key with the scope write.")
    given = request.args
    like = jobs.get(read_id(given["like"])) if "like" in given else None
    type_ = given.get("type") or (like.type if like else DEFAULT_TYPE)
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
        fields=payload_fields(handler.payload_schema(), like.payload if like else None),
        options=fields_of({**schema, "properties": options}, "", _options(like) if like else {}),
        is_copy=like is not None,
        post=links.curl("/jobs", method="POST"),
    )


@cache
def _patch_schema() -> dict[str, Any]:
    return PatchJob.model_json_schema()


def edit_fields(job: Job) -> list[Field]:
    """Return the fields of a form for PATCH /jobs/:id: the payload unless it is large, and empty ones."""
    schema = _patch_schema()
    options = {name: one for name, one in schema["properties"].items() if name != "payload"}
    payload = job.payload if len(json.dumps(job.payload)) <= MAX_TEXT else None
    return [*payload_fields({}, payload), *fields_of({**schema, "properties": options}, "", {})]


def _options(job: Job) -> dict[str, Any]:
    """Return the options that a copy of the job gets: all but its times and its unique key."""
    return {
        "queue": job.queue,
        "retry": {"max": len(job.retry_intervals), "interval": job.retry_intervals or None},
        "timeout": job.timeout,
        "tags": job.tags,
        "concurrencyKey": job.concurrency_key,
        "concurrencyLimit": job.concurrency_limit,
        "rateLimit": {"key": job.rate_key, "limit": job.rate_limit, "per": job.rate_per},
        "dependsOn": job.depends_on and [*map(str, job.depends_on)],
        "onDependencyFailure": job.on_dependency_failure,
        "webhookUrl": job.webhook_url,
    }
