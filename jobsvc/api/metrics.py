"""/metrics for Prometheus: read from Postgres and Redis, so that every process reports the same values."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from jobsvc import __version__, handlers, jobs
from jobsvc.api.redis_view import recent_redis
from jobsvc.api.responses import RedisState
from jobsvc.config import settings
from jobsvc.jobs import BOUNDS, Event
from jobsvc.states import ENDED, WAITING, Status

OTHER = "other"
"""Label of every type without a handler and every queue that isn't served: limits the number of series."""

_BY = ("type", "queue")


class JobsCollector(Collector):
    """Collects the metrics of jobs and queues, read anew at each scrape. Raises StoreUnavailable."""

    def collect(self) -> Iterator[Metric]:
        yield from _events()
        yield from _depths()
        yield _paused()
        yield from _redis()
        yield InfoMetricFamily("jobsvc_build", "The version of this process.", {"version": __version__})

    def describe(self) -> Iterator[Metric]:
        return iter(())  # else registering would query Postgres


def registry() -> CollectorRegistry:
    """Return a registry with the metrics of this service."""
    found = CollectorRegistry()
    found.register(JobsCollector())
    return found


def _events() -> Iterator[Metric]:
    rows = jobs.read_counters()
    yield _counter(rows, "accepted", "Jobs stored.", lambda row: row.event == Event.ACCEPTED)
    yield _counter(rows, "started", "Attempts started.", lambda row: row.event == Event.STARTED)
    yield _finished(rows)
    yield _counter(
        rows,
        "retried",
        "Failed attempts that are followed by another one, and retries of ended jobs by request.",
        lambda row: row.status == Status.RETRYING or row.event == Event.REVIVED,
    )
    yield _counter(rows, "recovered", "Attempts whose worker was lost.", lambda row: row.event == Event.LOST)
    yield _histogram(rows, "wait", "Seconds from the time a job is due to its start.", Event.STARTED)
    yield _histogram(rows, "run", "Duration of an attempt in seconds.", Event.ENDED)


def _counter(rows: Any, name: str, text: str, is_meant: Any) -> Metric:
    counts = Counter(dict.fromkeys(_expected(), 0))
    for row in filter(is_meant, rows):
        counts[_labels(row)] += int(row.number)
    family = CounterMetricFamily(f"jobsvc_jobs_{name}", text, labels=_BY)
    for labels, count in sorted(counts.items()):
        family.add_metric(labels, count)
    return family


def _finished(rows: Any) -> Metric:
    counts = Counter({(*series, status): 0 for series in _expected() for status in ENDED})
    for row in rows:
        if row.status in ENDED:
            counts[*_labels(row), row.status] += int(row.number)
    family = CounterMetricFamily("jobsvc_jobs_finished", "Jobs that ended.", labels=(*_BY, "status"))
    for labels, count in sorted(counts.items()):
        family.add_metric(labels, count)
    return family


def _histogram(rows: Any, name: str, text: str, event: Event) -> Metric:
    counts: dict[tuple[str, ...], Counter[float]] = {series: Counter() for series in _expected()}
    sums: Counter[tuple[str, ...]] = Counter()
    for row in rows:
        if row.event == event and row.le is not None:
            counts.setdefault(_labels(row), Counter())[row.le] += int(row.number)
            sums[_labels(row)] += row.seconds
    family = HistogramMetricFamily(f"jobsvc_job_{name}_seconds", text, labels=_BY)
    for labels, found in sorted(counts.items()):
        buckets = [(_bound(bound), sum(found[le] for le in found if le <= bound)) for bound in BOUNDS]
        family.add_metric(labels, buckets, float(sums[labels]))
    return family


def _bound(bound: float) -> str:
    return "+Inf" if bound == float("inf") else str(float(bound))


def _labels(row: Any) -> tuple[str, str]:
    return row.type if handlers.find(row.type) else OTHER, _queue(row.queue)


def _queue(name: str) -> str:
    return name if name in settings().JOBSVC_QUEUES else OTHER


def _expected() -> list[tuple[str, str]]:
    """Return the (type, queue) series that exist from the start, so that a first event is seen as an increase."""
    known = [handlers.find(name) for name in handlers.names()]
    return [(handler.name, handler.default_queue) for handler in known if handler]


def _depths() -> Iterator[Metric]:
    served = settings().JOBSVC_QUEUES
    counts = Counter({(queue, status): 0 for queue in served for status in (*WAITING, Status.PROCESSING)})
    oldest = dict.fromkeys(served, 0.0)
    withheld, no_handler = (Counter(dict.fromkeys(served, 0)) for _ in range(2))
    for depth in jobs.depths():
        queue = _queue(depth.queue)
        counts[queue, Status(depth.status)] += depth.jobs
        oldest[queue] = max(oldest.get(queue, 0.0), depth.waited or 0.0)
        withheld[queue] += depth.withheld
        no_handler[queue] += depth.no_handler
    family = GaugeMetricFamily("jobsvc_queue_jobs", "Jobs that have not ended.", labels=("queue", "status"))
    for labels, count in counts.items():
        family.add_metric(labels, count)
    yield family
    yield _by_queue("queue_oldest_seconds", "Longest time that a job of the queue has been due, in seconds.", oldest)
    yield _by_queue(
        "queue_withheld_jobs",
        "Due jobs that are not dispatched, since the queue is paused or a concurrency key or rate limit is full.",
        withheld,
    )
    yield _by_queue("queue_no_handler_jobs", "Due jobs that a worker refused, since it has no handler.", no_handler)
    yield GaugeMetricFamily(
        "jobsvc_relay_lag_seconds",
        "Longest time that a job has been due without being enqueued in RQ, in seconds.",
        value=jobs.relay_lag(),
    )


def _paused() -> Metric:
    paused = jobs.paused_queues()
    found = {queue: float(queue in paused) for queue in settings().JOBSVC_QUEUES}
    return _by_queue("queue_paused", "1 if the queue is paused.", found)


def _redis() -> Iterator[Metric]:
    redis = recent_redis()
    family = GaugeMetricFamily("jobsvc_redis", "1 for the state of Redis.", labels=("state",))
    for state in get_args(RedisState):
        family.add_metric((state,), state == redis.state)
    yield family
    if redis.state == "up":  # else unknown
        counts = Counter(dict.fromkeys(settings().JOBSVC_QUEUES, 0))
        for worker in redis.workers:
            if not worker.is_lost:
                counts.update({_queue(name) for name in worker.queues})
        yield _by_queue("workers", "Live workers that serve the queue.", counts)


def _by_queue(name: str, text: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"jobsvc_{name}", text, labels=("queue",))
    for queue, value in values.items():
        family.add_metric((queue,), value)
    return family
