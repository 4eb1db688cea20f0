"""Response body of GET /stats."""

from typing import cast

from typing_extensions import TypedDict

from jobsvc.jobs import History, Numbers, Series
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
    steps = [dump_numbers(step) for step in series.steps]
    columns = {name: [step[name] for step in steps] for name in steps[0]}
    return cast(SeriesShown, {"type": series.type, "queue": series.queue, **columns})


def dump_numbers(numbers: Numbers) -> dict[str, float | None]:
    """Return the counts of a period, and its percentiles in seconds, as in GET /stats."""
    return {
        "accepted": numbers.accepted,
        "started": numbers.started,
        "completed": numbers.completed,
        "failed": numbers.failed,
        "retried": numbers.retried,
        "waitP50": _show_seconds(numbers.wait.p50),
        "waitP95": _show_seconds(numbers.wait.p95),
        "runP50": _show_seconds(numbers.run.p50),
        "runP95": _show_seconds(numbers.run.p95),
    }


def _show_seconds(length: float | None) -> float | None:
    """Return the duration rounded to microseconds."""
    return None if length is None else round(length, 6)
