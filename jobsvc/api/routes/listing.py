"""GET /jobs: list jobs."""

import json

from flask import Blueprint, Response

from jobsvc import jobs
from jobsvc.api.describing import Reply, describe
from jobsvc.api.queries import ListQuery, link_to_next
from jobsvc.api.responses import JobPage
from jobsvc.api.showing import dump_job_for_caller
from jobsvc.api.validation import query

blueprint = Blueprint("listing", __name__)


@blueprint.get("/jobs")
@describe({200: Reply("A page of jobs, newest first.", JobPage, ("Link",))}, query=ListQuery)
def listing() -> Response:
    """List jobs."""
    asked = query(ListQuery)
    page = jobs.page(asked.filter(), asked.limit, asked.cursor, dump_job_for_caller)
    cursor = str(page.next) if page.next else None
    body = f'{{"jobs":[{",".join(page.texts)}],"nextCursor":{json.dumps(cursor)}}}\n'
    return Response(body, mimetype="application/json", headers={"Link": link_to_next(cursor)} if cursor else {})
