"""/jobs and /job-types: create, list, show, cancel, retry and delete jobs, and send their webhooks again."""

import json
from uuid import UUID

from flask import Blueprint, Response, request, url_for

from jobsvc import handlers, jobs
from jobsvc.api import actions, prefer_wait
from jobsvc.api.batch_requests import BatchRequest, read_batch
from jobsvc.api.etag import expected_versions, polled
from jobsvc.api.explain import explain
from jobsvc.api.explanation import Explanation
from jobsvc.api.job_types_reply import JobTypesReply, dump_job_type
from jobsvc.api.operation import Operation, Reply
from jobsvc.api.patch_job import PatchJob
from jobsvc.api.queries import BulkQuery, ListQuery, link_to_next
from jobsvc.api.requests import JobRequest
from jobsvc.api.responses import (
    AttemptsReply,
    CountReply,
    JobIdReply,
    JobIdsReply,
    JobPage,
    dump_count,
    dump_job_for_caller,
)
from jobsvc.api.submit import Accepted, accept, job_headers, job_reply, relay
from jobsvc.api.validation import body, json_body, query, read_id
from jobsvc.dispatch.duties import Duty
from jobsvc.errors import InvalidInput, Problem, UniqueKeyConflict, UnknownDependencies
from jobsvc.jobs.serialize import JobShown, dump_attempts
from jobsvc.states import Status

blueprint = Blueprint("jobs", __name__)


@blueprint.post("/jobs")
@Operation(
    "write",
    {
        202: Reply("The job was accepted.", JobIdReply, ("Location", "Idempotency-Replayed", "Preference-Applied")),
        200: Reply(
            "With `Prefer: wait`, the job, which ended in time. Else the id of the unfinished job with this uniqueKey.",
            JobShown | JobIdReply,
            ("Location", "Idempotency-Replayed", "Preference-Applied"),
        ),
    },
    takes=JobRequest,
    asks=("Idempotency-Key", "Prefer"),
    errors=(409,),
    examples={
        "A test job": {"type": "TEST_JOB", "payload": {"durationMs": 500}},
        "An HTTP request": {"type": "HTTP_REQUEST", "payload": {"url": "https://example.com/hook", "body": {"id": 7}}},
        "In a minute, with retries": {"type": "TEST_JOB", "delay": 60, "retry": {"max": 2, "interval": [5, 30]}},
        "Once, a minute after the last of several requests": {
            "type": "TEST_JOB",
            "uniqueKey": "index-7",
            "onConflict": "replace",
            "delay": 60,
        },
        "At most 100 starts a minute, and growing intervals": {
            "type": "TEST_JOB",
            "rateLimit": {"key": "smtp", "limit": 100, "per": 60},
            "retry": {"max": 5, "backoff": {"initial": 2, "factor": 3}},
        },
    },
)
@prefer_wait.or_end
def create_job() -> Accepted:
    """Create a job.

    202: the job is stored, and will run. 200: no job was created, since an unfinished one has the uniqueKey, whose
    values the request has replaced if `onConflict` is `replace`; or with `Prefer: wait=N` the job ended within N
    seconds, and is the response. 409: `onConflict` doesn't allow that the uniqueKey is taken.
    """
    reply, status, headers = accept([body(JobRequest).resolve()], job_reply)
    return reply, status, {**headers, **job_headers(reply["jobId"], request.root_path)}


@blueprint.post("/jobs/batch")
@Operation(
    "write",
    {202: Reply("All jobs were accepted.", JobIdsReply, ("Idempotency-Replayed",))},
    takes=BatchRequest,
    asks=("Idempotency-Key",),
    errors=(409,),
    examples={
        "Two jobs": {"jobs": [{"type": "TEST_JOB"}, {"type": "TEST_JOB", "queue": "low"}]},
        "A workflow": {
            "jobs": [
                {"ref": "left", "type": "TEST_JOB"},
                {"ref": "right", "type": "TEST_JOB"},
                {"type": "TEST_JOB", "dependsOn": ["left", "right"]},
            ]
        },
    },
)
def create_jobs() -> Accepted:
    """Create many jobs: all of them or none. A `ref` lets others of them depend on a job, which makes a workflow."""
    new = read_batch(json_body())
    try:
        return accept(new, lambda submitted: (202, {"jobIds": [job.id for job in submitted]}))
    except UniqueKeyConflict as error:
        error.problems = [Problem(f"/jobs/{place}", refusal) for place, refusal in error.refusals.items()]
        raise
    except UnknownDependencies as error:
        raise InvalidInput(error.problems_at("/jobs/{}")) from None


@blueprint.get("/jobs")
@Operation("read", {200: Reply("A page of jobs, newest first.", JobPage, ("Link",))}, query=ListQuery)
def list_jobs() -> Response:
    """List jobs."""
    asked = query(ListQuery)
    page = jobs.page(asked.filter(), asked.limit, asked.cursor, dump_job_for_caller)
    cursor = str(page.next) if page.next else None
    body = f'{{"jobs":[{",".join(page.texts)}],"nextCursor":{json.dumps(cursor)}}}\n'
    return Response(body, mimetype="application/json", headers={"Link": link_to_next(cursor)} if cursor else {})


@blueprint.get("/jobs/<uuid:job_id>")
@Operation(
    "read",
    {200: Reply("The job.", JobShown, ("ETag", "Retry-After")), 304: Reply("Not modified.", headers=("ETag",))},
    asks=("If-Match", "If-None-Match"),
    errors=(404, 412),
)
def get_job(job_id: UUID) -> Response:
    """Get a job."""
    return polled(prefer_wait.get(job_id))


@blueprint.patch("/jobs/<uuid:job_id>")
@Operation(
    "write",
    {200: Reply("The job, changed.", JobShown, ("ETag",))},
    takes=PatchJob,
    asks=("If-Match",),
    errors=(404, 409, 412),
    examples={"Start it now": {"delay": None}, "Another payload and queue": {"payload": {"steps": 2}, "queue": "low"}},
)
def update_job(job_id: UUID) -> tuple[JobShown, int, dict[str, str]]:
    """Change a waiting job: only the fields that are given.

    After the response it starts only as changed. Times in seconds count from this request. `retry` counts from the
    next attempt. An expiry has no effect once an attempt has started.
    """
    job = actions.update(job_id, body(PatchJob), expected_versions())
    return dump_job_for_caller(job), 200, {"ETag": f'"{job.version}"'}


@blueprint.get("/jobs/<job_id>/attempts")
@Operation("read", {200: Reply("The attempts of the job, oldest first.", AttemptsReply)}, errors=(404,))
def list_attempts(job_id: str) -> AttemptsReply:
    """List the attempts of a job."""
    return {"attempts": dump_attempts(*jobs.history(read_id(job_id)))}


@blueprint.get("/jobs/<job_id>/explain")
@Operation("read", {200: Reply("The reasons, and what happens next.", Explanation)}, errors=(404,))
def explain_job(job_id: str) -> Explanation:
    """Explain why a job is where it is: what it waits for, since when it runs, or how it ended."""
    return explain(read_id(job_id))


@blueprint.post("/jobs/<job_id>/cancel")
@Operation(
    "write",
    {
        200: Reply("The job, now cancelled.", JobShown),
        202: Reply("The running job; its attempt will be stopped within seconds.", JobShown),
    },
    asks=("If-Match",),
    errors=(404, 409, 412),
)
def cancel_job(job_id: str) -> tuple[JobShown, int]:
    """Cancel a job: at once if it waits; if it runs, its attempt is stopped within seconds."""
    job = actions.cancel(read_id(job_id), expected_versions())
    return dump_job_for_caller(job), 200 if job.status == Status.CANCELLED else 202


@blueprint.post("/jobs/<job_id>/retry")
@Operation("write", {200: Reply("The job, now waiting.", JobShown)}, asks=("If-Match",), errors=(404, 409, 412))
def retry_job(job_id: str) -> JobShown:
    """Retry a failed or cancelled job at once."""
    return dump_job_for_caller(actions.retry(read_id(job_id), expected_versions()))


@blueprint.delete("/jobs/<uuid:job_id>")
@Operation("admin", {204: Reply("The job was deleted.")}, asks=("If-Match",), errors=(404, 409, 412))
def delete_job(job_id: UUID) -> tuple[str, int]:
    """Delete a finished job and its attempts."""
    actions.delete(job_id, expected_versions())
    return "", 204


@blueprint.post("/jobs/cancel")
@Operation("admin", {200: Reply("The number of jobs cancelled, or to be stopped.", CountReply)}, query=BulkQuery)
def cancel_jobs() -> CountReply:
    """Cancel all jobs that match a filter of at least one query parameter."""
    asked = query(BulkQuery)
    walk = asked.walk()
    return dump_count(actions.cancel_all(asked.filter(), walk), walk)


@blueprint.post("/jobs/retry")
@Operation("admin", {200: Reply("The number of jobs retried.", CountReply)}, query=BulkQuery)
def retry_jobs() -> CountReply:
    """Retry all failed and cancelled jobs that match a filter of at least one query parameter."""
    asked = query(BulkQuery)
    walk = asked.walk()
    return dump_count(actions.retry_all(asked.filter(), walk), walk)


@blueprint.post("/jobs/delete")
@Operation("admin", {200: Reply("The number of jobs deleted.", CountReply)}, query=BulkQuery)
def delete_jobs() -> CountReply:
    """Delete all finished jobs that match a filter of at least one query parameter, and their attempts."""
    asked = query(BulkQuery)
    walk = asked.walk()
    return dump_count(actions.delete_all(asked.filter(), walk), walk)


@blueprint.post("/jobs/<job_id>/webhook")
@Operation(
    "write",
    {202: Reply("The job that will send the webhook.", JobIdReply, ("Location",))},
    asks=("If-Match",),
    errors=(404, 409, 412),
)
def resend_webhook(job_id: str) -> tuple[dict[str, str], int, dict[str, str]]:
    """Send the webhook of a finished job again, by a new job."""
    delivery = str(jobs.announce_again(read_id(job_id), expected_versions()))
    relay().notify(Duty.DUE)
    return {"jobId": delivery}, 202, {"Location": url_for("jobs.get_job", job_id=delivery)}


@blueprint.get("/job-types")
@Operation("read", {200: Reply("The job types.", JobTypesReply)})
def list_job_types() -> JobTypesReply:
    """List the job types, each with the JSON Schema of its payload and its defaults."""
    known = [handlers.find(name) for name in handlers.names()]
    return {"jobTypes": [dump_job_type(handler) for handler in known if handler]}
