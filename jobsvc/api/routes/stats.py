"""/stats: counts over time."""

from flask import Blueprint

from jobsvc import jobs
from jobsvc.api.operation import Operation, Reply
from jobsvc.api.queries import StatsQuery
from jobsvc.api.stats_reply import StatsReply, dump_history
from jobsvc.api.validation import query

blueprint = Blueprint("stats", __name__)


@blueprint.get("/stats")
@Operation("read", {200: Reply("The counts, by type and queue.", StatsReply)}, query=StatsQuery)
def get_stats() -> StatsReply:
    """Read how many jobs were accepted, started and ended over time, and how long they waited and ran.

    Counted by the minute for 2 hours, and by 15 minutes for 7 days. The window is rounded to whole steps; the last one
    is the current one. A type and queue without jobs in the window has no series. `retried` counts failed attempts
    that another one follows, and retries by request. Percentiles are interpolated within the buckets of the metrics
    `jobsvc_job_wait_seconds` and `jobsvc_job_run_seconds`. Webhook deliveries are jobs of the type WEBHOOK.
    """
    asked = query(StatsQuery)
    return dump_history(jobs.read_history(asked.window, asked.step, type_=asked.type, queue=asked.queue))
