"""Counters over time: how many jobs were accepted, started and ended in each step, and how long they took."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Literal

from sqlalchemy import Double, cast, func, select

from jobsvc.db.engine import transaction
from jobsvc.db.sql import now
from jobsvc.jobs.counter_history import (
    COUNTS,
    FINE_SECONDS,
    LONGEST_SECONDS,
    MINUTE,
    QUARTER_HOUR,
    select_history,
)
from jobsvc.jobs.counters import BOUNDS

Label = Literal["type", "queue"]


@dataclass(frozen=True)
class Durations:
    """Percentiles and mean of measured durations, in seconds; None if nothing was measured."""

    p50: float | None = None
    p95: float | None = None
    mean: float | None = None


_NONE = Durations()


@dataclass(frozen=True)
class Numbers:
    """The counts of a period. wait: from due times to starts; run: durations of attempts."""

    accepted: int
    started: int
    completed: int
    failed: int
    retried: int
    wait: Durations
    run: Durations


@dataclass(frozen=True)
class Series:
    """The numbers of each step of a history, and those of all its steps together.

    type, queue: None if all of them are merged.
    """

    type: str | None
    queue: str | None
    steps: list[Numbers]
    whole: Numbers


@dataclass(frozen=True)
class History:
    """Counters from `start` to `end`, by steps of `step` seconds; both times are multiples of the step."""

    start: datetime
    end: datetime
    step: int
    series: list[Series]

    @property
    def times(self) -> list[datetime]:
        """The start of each step; the last step is the current one."""
        count = int((self.end - self.start).total_seconds()) // self.step
        return [self.start + timedelta(seconds=self.step * number) for number in range(count)]


@dataclass
class _Sums:
    """Added rows of the history."""

    counts: Sequence[int] = (0,) * len(COUNTS)
    wait: Sequence[int] = (0,) * len(BOUNDS)
    wait_seconds: float = 0.0
    run: Sequence[int] = (0,) * len(BOUNDS)
    run_seconds: float = 0.0

    def numbers(self) -> Numbers:
        """Return the counts with the percentiles and means of the durations."""
        counts = dict(zip(COUNTS, self.counts, strict=True))
        wait, run = _summary(self.wait, self.wait_seconds), _summary(self.run, self.run_seconds)
        return Numbers(**counts, wait=wait, run=run)


def step_unit(window: int) -> int:
    """Return the seconds of which a step must be a multiple in a window of so many seconds."""
    return MINUTE if window <= FINE_SECONDS else QUARTER_HOUR


def longest_step(window: int) -> int:
    """Return the longest step, in seconds, that a window of so many seconds may have."""
    return FINE_SECONDS if window <= FINE_SECONDS else LONGEST_SECONDS


def read_history(
    window: int,
    step: int,
    *,
    type_: str | None = None,
    queue: str | None = None,
    by: Collection[Label] = ("type", "queue"),
) -> History:
    """Return the counters of the last `window` seconds, by steps of `step` seconds.

    The window is rounded up to whole steps, or down where the history isn't kept for so long.
    type_, queue: only jobs of these are counted. by: labels by which series differ; others are merged, so that
    without any there is at most one series. What has no counts in the window has no series.
    Raises ValueError if the step doesn't suit the window (see `step_unit`, `longest_step`), and StoreUnavailable.
    """
    longest = longest_step(window)
    if not 0 < window <= longest or not 0 < step <= longest or step % step_unit(window):
        raise ValueError(f"there are no steps of {step} s in a window of {window} s")
    count = min(-(-window // step), longest // step)
    with transaction() as connection:
        current = connection.execute(select(cast(func.extract("epoch", now()), Double))).scalar_one()
        end = (int(current) // step + 1) * step
        start = end - count * step
        span = {"start": start, "end": end, "step": step}
        which = {label: name for label, name in (("type", type_), ("queue", queue)) if name is not None}
        wanted = {f"wanted_{label}": name for label, name in which.items()}
        found = connection.execute(select_history(frozenset(which), frozenset(by)), {**span, **wanted}).all()
    sums: dict[tuple[str | None, str | None], list[_Sums]] = {}
    for row in found:
        steps = sums.setdefault((row.type, row.queue), [_Sums()] * count)
        counts = [getattr(row, name) for name in COUNTS]
        steps[(int(row.at.timestamp()) - start) // step] = _Sums(
            counts, row.wait, row.wait_seconds, row.run, row.run_seconds
        )
    in_order = sorted(sums, key=lambda labels: [label or "" for label in labels])
    series = [_series(*labels, sums[labels]) for labels in in_order]
    return History(datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC), step, series)


def _series(type_: str | None, queue: str | None, steps: Sequence[_Sums]) -> Series:
    whole = _Sums(
        counts=_sum_each(one.counts for one in steps),
        wait=_sum_each(one.wait for one in steps),
        wait_seconds=sum(one.wait_seconds for one in steps),
        run=_sum_each(one.run for one in steps),
        run_seconds=sum(one.run_seconds for one in steps),
    )
    return Series(type_, queue, [one.numbers() for one in steps], whole.numbers())


def _sum_each(lists: Iterable[Sequence[int]]) -> list[int]:
    return [sum(numbers) for numbers in zip(*lists, strict=True)]


def _summary(buckets: Sequence[int], total_seconds: float) -> Durations:
    below = list(accumulate(buckets))
    if not below[-1]:
        return _NONE
    return Durations(percentile(below, 0.5), percentile(below, 0.95), total_seconds / below[-1])


def percentile(cumulative: Sequence[int], share: float) -> float:
    """Return the duration (s) that this share of the measured ones doesn't exceed, as histogram_quantile does.

    cumulative: the number of durations below each of BOUNDS; the last one isn't 0. Within a bucket, durations count as
    evenly spread. Above the last finite bound, that bound is returned.
    """
    rank = share * cumulative[-1]
    bucket = bisect_left(cumulative, rank)
    low = BOUNDS[bucket - 1] if bucket else 0.0
    if bucket == len(BOUNDS) - 1:
        return low
    below = cumulative[bucket - 1] if bucket else 0
    return low + (BOUNDS[bucket] - low) * (rank - below) / (cumulative[bucket] - below)
