"""The overview: what needs attention, the last hour, queues, types and workers."""

from typing import Any

from flask import Response

from jobsvc import jobs
from jobsvc.config import settings
from jobsvc.jobs import History
from jobsvc.ui import alerts, charts, links
from jobsvc.ui.console import HOUR, blueprint, show

MINUTE = 60


@blueprint.get("/")
def overview() -> Response:
    """Show the state of the service."""
    redis = alerts.recent_redis()
    queues = jobs.queue_counts(settings().JOBSVC_QUEUES)
    return show(
        "overview",
        "Overview",
        links.curl("/stats", {"window": 3600, "step": 60}.items()),
        alerts=alerts.find_alerts(redis, queues),
        queues=queues,
        types=jobs.read_history(HOUR, HOUR, by=["type"]).series,
        redis=redis,
        is_empty=not any(counted.number for queue in queues for counted in queue.counts.values()),
        test_job=links.curl("/jobs", method="POST", body={}),
        **chart_values(jobs.read_history(HOUR, MINUTE, by=())),
    )


def chart_values(history: History) -> dict[str, Any]:
    """Return what the template `charts.html` shows of a history with at most one series."""
    steps = history.series[0].steps if history.series else []
    names = ("completed", "retried", "failed")
    ended = {name: [getattr(step, name) for step in steps] for name in names}
    labels = [
        f"{at:%H:%M} UTC: {step.completed:,} completed, {step.retried:,} retried, {step.failed:,} failed"
        for at, step in zip(history.times, steps, strict=False)
    ]
    waits = {"p50": [step.wait.p50 for step in steps], "p95": [step.wait.p95 for step in steps]}
    runs = {"p50": [step.run.p50 for step in steps], "p95": [step.run.p95 for step in steps]}
    return {
        "ended": charts.stack(ended),
        "labels": labels,
        "totals": {name: sum(values) for name, values in ended.items()},
        "waits": charts.draw(waits),
        "runs": charts.draw(runs),
    }
