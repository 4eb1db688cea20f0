"""The list of jobs, with its filters, and the page of one job."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any
from uuid import UUID

from flask import Response, redirect, request, url_for
from pydantic import BeforeValidator, Field

from jobsvc import handlers, jobs
from jobsvc.api.explain import explain
from jobsvc.api.queries import ListQuery
from jobsvc.api.responses import dump_job_for_caller
from jobsvc.api.validation import query, read_id
from jobsvc.config import settings
from jobsvc.jobs import Filter
from jobsvc.jobs.serialize import dump_attempts
from jobsvc.states import ENDED
from jobsvc.ui import links
from jobsvc.ui.console import blueprint, show
from jobsvc.ui.timeline import MOST_ATTEMPTS, timeline


def _read_top(value: Any) -> UUID:
    return read_id(str(value))


class JobsQuery(ListQuery):
    """The query parameters of the list: those of GET /jobs, `q` to search, and `top`, the newest job shown before."""

    q: Annotated[str, Field(max_length=200)] = ""
    top: Annotated[UUID, BeforeValidator(_read_top, json_schema_input_type=UUID)] | None = None


@blueprint.get("/jobs")
def list_jobs() -> Response:
    """Show a page of jobs, newest first; a refresh shows no jobs that are newer than `top`, but their number."""
    asked = query(JobsQuery)
    found = jobs.find(asked.q) if asked.q else ()
    if asked.q and (target := _search(asked.q.strip(), found)):
        return target
    wanted = asked.filter()
    # The page of a refresh starts below the id that follows `top`.
    start = asked.cursor or (UUID(int=asked.top.int + 1) if asked.top else None)
    page = jobs.page_of_summaries(wanted, asked.limit, start)
    top = asked.top or (page.jobs[0].id if page.jobs and not asked.cursor else None)
    parameters = [(name, value) for name, value in request.args.items(multi=True) if name not in ("q", "top", "cursor")]
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
        chips=list(_chips(asked)),
        selection=[one for one in parameters if one[0] != "limit"],
        searched=asked.q,
        found=found,
        is_first=asked.cursor is None,
        types=handlers.names(),
        queues=settings().JOBSVC_QUEUES,
    )


def _chips(asked: JobsQuery) -> Iterator[tuple[str, str]]:
    """Yield name and value of each query parameter that narrows the list, but `status`, which has tabs."""
    names = ("type", "queue", "tag", "createdAfter", "createdBefore", "errorType", "error")
    return ((name, value) for name, value in request.args.items(multi=True) if name in names)


def _search(text: str, job_ids: Sequence[UUID]) -> Response | None:
    """Return a redirect to what the text of the search box names: a job, a type, or a tag; None if that is unclear."""
    if len(job_ids) == 1:
        return _to(url_for("ui.show_job", job_id=job_ids[0]))
    if text in handlers.types():
        return _to(url_for("ui.list_jobs", type=text))
    if not job_ids and jobs.page_of_summaries(Filter(tags=[text]), 1).jobs:
        return _to(url_for("ui.list_jobs", tag=text))
    return None


def _to(location: str) -> Response:
    return redirect(location)  # type: ignore[return-value]  # Flask's own class


@blueprint.get("/jobs/<job_id>")
def show_job(job_id: str) -> Response:
    """Show a job, its attempts, and why it is where it is."""
    job, ended, lines = jobs.history(read_id(job_id))
    attempts = dump_attempts(job, ended, lines)
    return show(
        "job",
        job.type,
        links.curl(f"/jobs/{job.id}"),
        job=job,
        shown=dump_job_for_caller(job),
        attempts=attempts[:-MOST_ATTEMPTS:-1],
        timeline=timeline(job, attempts),
        why=explain(job.id),
        has_ended=job.status in ENDED,
        path=f"/jobs/{job.id}",
    )
