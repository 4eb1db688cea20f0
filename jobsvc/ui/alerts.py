"""What needs attention now."""

import threading
import time
from collections.abc import Sequence

from jobsvc.api.redis_view import RedisView, read_redis
from jobsvc.durations import format_duration
from jobsvc.jobs import QueueCounts

CHECK_SECONDS = 1.0
"""Seconds for which the view of Redis is used again: without an answer a check takes up to 2 s."""

LONG_WAIT_SECONDS = 60.0
"""How long a job of a queue may have been due before the console warns."""

_lock = threading.Lock()
_view, _until = RedisView(), 0.0


def recent_redis() -> RedisView:
    """Return what Redis showed at most CHECK_SECONDS ago."""
    global _view, _until
    with _lock:
        if time.monotonic() >= _until:
            _view, _until = read_redis(), time.monotonic() + CHECK_SECONDS
        return _view


def find_alerts(redis: RedisView, queues: Sequence[QueueCounts]) -> list[str]:
    """Return a sentence for each problem, the most important first."""
    found = [redis.problem] if redis.problem else []
    if not redis.problem and all(worker.is_lost for worker in redis.workers):
        found.append("No worker is running: jobs are accepted, and wait. Start one with `make worker`.")
    if redis.is_suspended:
        found.append("All workers are suspended; `rq resume` lets them take jobs again.")
    for queue in queues:
        if not queue.is_paused and (queue.oldest_waiting or 0) > LONG_WAIT_SECONDS:
            found.append(f"Queue {queue.name}: a job has been due for {format_duration(queue.oldest_waiting)}.")
    return found
