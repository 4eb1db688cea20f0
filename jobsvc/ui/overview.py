"""The overview: what needs attention, the last hour, queues, types and workers."""

from collections.abc import Sequence
from typing import Any

from flask import Response

from jobsvc import jobs
from jobsvc.api.redis_view import RedisView, recent_redis
from jobsvc.config import settings
from jobsvc.durations import format_duration
from jobsvc.jobs import History, QueueCounts
from jobsvc.ui import charts, links
from jobsvc.ui.console import HOUR, MINUTE, blueprint, show

LONG_WAIT_SECONDS = 60.0
"""How long a job of a queue may have been due before the console warns."""


@blueprint.get("/")
def overview() -> Response:
    """Show the state of the service."""
    redis = recent_redis()
    queues = jobs.queue_counts(settings().JOBSVC_QUEUES)
    charted = chart_values(jobs.read_history(HOUR, MINUTE, by=()))
    return show(
        "overview",
        "Overview",
        links.curl("/stats", {"window": 3600, "step": 60}.items()),
        alerts=find_alerts(redis, queues),
        queues=queues,
        types=jobs.read_history(HOUR, MINUTE, by=["type"]).series,
        redis=redis,
        is_empty=not any(counted.number for queue in queues for counted in queue.counts.values()),
        test_job=links.curl("/jobs", method="POST", body={}),
        failed=charted["totals"]["failed"],
        **charted,
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


def find_alerts(redis: RedisView, queues: Sequence[QueueCounts]) -> list[str]:
    """Return a sentence for each problem, the most important first."""
    found = [redis.problem] if redis.problem else []
    if not redis.problem and all(worker.is_lost for worker in redis.workers):
        found.append("No worker is running: jobs are accepted, and wait. Start one with `jobsvc worker`.")
    if redis.is_suspended:
        found.append("All workers are suspended; `rq resume` lets them take jobs again.")
    for queue in queues:
        if not queue.is_paused and (queue.oldest_waiting or 0) > LONG_WAIT_SECONDS:
            found.append(f"Queue {queue.name}: a job has been due for {format_duration(queue.oldest_waiting)}.")
    return found
