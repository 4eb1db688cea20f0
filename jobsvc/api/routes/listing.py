"""GET /jobs: the list."""

from flask import Blueprint

from jobsvc import jobs
from jobsvc.api.describing import Reply, describe
from jobsvc.api.paging import link_to_next, write_cursor
from jobsvc.api.parsing import query
from jobsvc.api.queries import ListQuery
from jobsvc.api.replies import JobPage
from jobsvc.wire import dump_job

blueprint = Blueprint("listing", __name__)


@blueprint.get("/jobs")
@describe({200: Reply("A page of them.", JobPage, ("Link",))}, query=ListQuery)
def listing() -> tuple[JobPage, dict[str, str]]:
    """List jobs, the newest first."""
    asked = query(ListQuery)
    page = jobs.page(asked.filter(), asked.limit, asked.cursor)
    cursor = write_cursor(page.next) if page.next else None
    body: JobPage = {"jobs": [dump_job(job) for job in page.jobs], "nextCursor": cursor}
    return body, {"Link": link_to_next(cursor)} if cursor else {}
