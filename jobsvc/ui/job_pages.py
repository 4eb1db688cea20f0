"""Jobs: the list with its filters, one job, groups of failures, and webhook deliveries."""

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

from flask import Response, redirect, url_for
from pydantic import BeforeValidator, Field

from jobsvc import handlers, jobs
from jobsvc.api.explain import explain
from jobsvc.api.fields import Tag
from jobsvc.api.queries import ListQuery, PageQuery
from jobsvc.api.redis_view import recent_redis
from jobsvc.api.responses import dump_job_for_caller
from jobsvc.api.scopes import has_scope
from jobsvc.api.validation import query, read_id
from jobsvc.config import settings
from jobsvc.jobs import Counted, FailureGroups, Filter
from jobsvc.jobs.serialize import dump_attempts
from jobsvc.states import ENDED, WAITING, Status
from jobsvc.ui import charts, links
from jobsvc.ui.console import blueprint, show
from jobsvc.ui.new_job import edit_fields
from jobsvc.ui.timeline import MOST_ATTEMPTS, timeline


class JobsQuery(ListQuery):
    """The query parameters of the list: those of GET /jobs, `q` to search, and `top`, the newest job shown before."""

    q: Annotated[str, Field(max_length=2100)] = ""
    top: UUID | None = None
    tag: Annotated[list[Tag], BeforeValidator(lambda tags: [*filter(None, tags)]), Field(max_length=16)] = []


@blueprint.get("/jobs")
def list_jobs() -> Response:
    """Show a page of jobs, newest first; a refresh shows no jobs that are newer than `top`, but their number."""
    asked = query(JobsQuery)
    found = jobs.find(asked.q) if asked.q else ()
    if asked.q and (target := _search(asked.q.strip(), found)):
        return redirect(target)  # type: ignore[return-value]  # of Flask's own class
    wanted = asked.filter()
    # The page of a refresh starts below the id that follows `top`.
    start = asked.cursor or (UUID(int=(asked.top.int + 1) % 2**128) if asked.top else None)
    page = jobs.page_of_summaries(wanted, asked.limit, start)
    top = asked.top or (page.jobs[0].id if page.jobs and not asked.cursor else None)
    parameters = [one for one in links.given() if one[0] not in ("q", "top", "cursor")]
    return show(
        "jobs",
        "Jobs",
        links.curl("/jobs", parameters),
        rows=page.jobs,
        older=links.with_query(cursor=page.next) if page.next else None,
        newer=jobs.count_newer(wanted, asked.top) if asked.top else 0,
        refresh=links.with_query(top=top) if top else None,
        counts=jobs.count_by_status(wanted),
        statuses=asked.status,
        chips=[one for one in parameters if one[0] not in ("status", "limit")],
        selection=[one for one in parameters if one[0] != "limit"],
        can_act=any(name not in ("limit", "payload") for name, _ in parameters),
        searched=asked.q,
        found=found,
        is_first=asked.cursor is None,
        types=handlers.names(),
        queues=settings().JOBSVC_QUEUES,
    )


def _search(text: str, job_ids: Sequence[UUID]) -> str | None:
    """Return the URL of what the search box names: a job, type, tag, or a part of a payload; else None."""
    name, _, part = text.partition(":")
    if name == "payload" and part.lstrip().startswith("{"):
        return url_for("ui.list_jobs", payload=part.strip())
    if len(job_ids) == 1:
        return url_for("ui.show_job", job_id=job_ids[0])
    if text in handlers.types():
        return url_for("ui.list_jobs", type=text)
    if not job_ids and jobs.page_of_summaries(Filter(tags=[text]), 1).jobs:
        return url_for("ui.list_jobs", tag=text)
    return None


@blueprint.get("/jobs/<job_id>")
def show_job(job_id: str) -> Response:
    """Show a job, its attempts, and why it is where it is."""
    job, ended, lines = jobs.history(read_id(job_id), MOST_ATTEMPTS + 1)
    attempts = dump_attempts(job, ended, lines)
    return show(
        "job",
        job.type,
        links.curl(f"/jobs/{job.id}"),
        job=job,
        shown=dump_job_for_caller(job),
        attempts=attempts[: -MOST_ATTEMPTS - 1 : -1],
        timeline=timeline(job, attempts),
        why=explain(job.id, recent_redis),
        graph=jobs.read_graph(job),
        edit=edit_fields(job) if job.status in WAITING and job.type in handlers.names() and has_scope("write") else (),
        has_more=len(attempts) > MOST_ATTEMPTS,
        has_ended=job.status in ENDED,
        path=f"/jobs/{job.id}",
    )


@blueprint.get("/failures")
def list_failures() -> Response:
    """Show the groups of the newest failed and retrying jobs."""
    found = jobs.recent_failure_groups()
    return show(
        "failures",
        "Failures",
        links.curl("/jobs", (("status", "FAILED"), ("status", "RETRYING"))),
        groups=describe(found),
        is_complete=found.is_complete,
    )


def describe(found: FailureGroups, **only: str) -> list[dict[str, Any]]:
    """Return what the template `failure_groups.html` shows. only: the queue, if the groups are of one."""
    rows = []
    for group in found.groups:
        selection = [*only.items(), ("type", group.type), ("errorType", group.error_type), ("error", group.line)]
        failed = Counted(group.statuses[Status.FAILED], found.is_complete)
        spark = charts.stack({"failed": group.bins})
        rows.append({"group": group, "selection": selection, "failed_jobs": failed, "spark": spark})
    return rows


@blueprint.get("/webhooks")
def list_webhooks() -> Response:
    """Show a page of deliveries, newest first."""
    asked = query(PageQuery)
    deliveries, following = jobs.deliveries(asked.limit, asked.cursor)
    return show(
        "webhooks",
        "Webhooks",
        links.curl("/jobs", {"type": "WEBHOOK"}.items()),
        deliveries=deliveries,
        older=links.with_query(cursor=following) if following else None,
        is_first=asked.cursor is None,
    )
