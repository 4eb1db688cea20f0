"""Response body of GET /stats."""

from typing_extensions import TypedDict

from jobsvc.jobs import History, Series
from jobsvc.jobs.serialize import Time, show_time


class SeriesShown(TypedDict):
    """The counts of a type's jobs in a queue, a number for each step; percentiles in seconds, null without jobs."""

    type: str | None
    queue: str | None
    accepted: list[int]
    started: list[int]
    completed: list[int]
    failed: list[int]
    retried: list[int]
    waitP50: list[float | None]
    waitP95: list[float | None]
    runP50: list[float | None]
    runP95: list[float | None]


StatsReply = TypedDict("StatsReply", {"from": Time, "to": Time, "step": int, "series": list[SeriesShown]})
StatsReply.__doc__ = (
    "Counts over time, by steps of `step` seconds from `from` to `to`; the last step is the current one."
)


def dump_history(history: History) -> StatsReply:
    """Return the history as in GET /stats."""
    return {
        "from": show_time(history.start) or "",
        "to": show_time(history.end) or "",
        "step": history.step,
        "series": [_dump_series(series) for series in history.series],
    }


def _dump_series(series: Series) -> SeriesShown:
    return {
        "type": series.type,
        "queue": series.queue,
        "accepted": [step.accepted for step in series.steps],
        "started": [step.started for step in series.steps],
        "completed": [step.completed for step in series.steps],
        "failed": [step.failed for step in series.steps],
        "retried": [step.retried for step in series.steps],
        "waitP50": [show_seconds(step.wait.p50) for step in series.steps],
        "waitP95": [show_seconds(step.wait.p95) for step in series.steps],
        "runP50": [show_seconds(step.run.p50) for step in series.steps],
        "runP95": [show_seconds(step.run.p95) for step in series.steps],
    }


def show_seconds(length: float | None) -> float | None:
    """Return the duration rounded to microseconds."""
    return None if length is None else round(length, 6)
