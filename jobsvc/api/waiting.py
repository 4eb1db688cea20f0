"""Explains why a job waits, from what Postgres and Redis show."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import takewhile
from typing import NamedTuple

from jobsvc.api.explanation import DependencyShown, Explanation, Reason, make_reason, show_moment
from jobsvc.api.redis_view import RedisView
from jobsvc.config import settings
from jobsvc.jobs import MOST_BEFORE, Place, Situation
from jobsvc.jobs.serialize import show_number
from jobsvc.states import Outcome, Status


class Found(NamedTuple):
    """A reason, and what happens next if it is the only one."""

    reason: Reason
    next: str


def explain_waiting(job: Situation, redis: RedisView) -> Explanation:
    """Explain a waiting job: every reason that holds, the most important first, and what happens next.

    redis: with only those workers that live and serve the job's queue.
    """
    found = [one for find in _FINDERS if (one := find(job, redis))] or [_behind(job, redis)]
    return {"status": job.status, "reasons": [one.reason for one in found], "next": _next(job, found)}


def _next(job: Situation, found: Sequence[Found]) -> str:
    expires_at = show_moment(job.expires_at)
    if job.is_expired:
        return f"The job expired at {expires_at}: the next sweep ends it as FAILED, as Expired."
    following = found[0].next
    if len(found) > 1 and found[1].reason["code"] != "behind":
        at = "" if job.is_due else f", at {show_moment(job.due_at)} at the earliest"
        following = f"Starts once none of these reasons holds any more{at}."
    has_started = job.last_outcome is not None
    return following + (f" Fails if it has not started by {expires_at}." if expires_at and not has_started else "")


def _later(job: Situation, redis: RedisView) -> Found | None:
    if job.is_due:
        return None
    at = show_moment(job.due_at)
    following = f"Starts at {at}, or when a slot is free after that."
    if job.status == Status.RETRYING:
        numbers = {"attempt": job.attempts, "maxAttempts": job.max_attempts, "errorType": job.error_type}
        detail = f"Attempt {job.attempts} of {job.max_attempts} failed ({job.error_type}). The next one is due at {at}."
        return Found(make_reason("retry-backoff", detail, at=at, **numbers), following)
    if job.status == Status.SCHEDULED and job.last_outcome == Outcome.SNOOZED:
        return Found(make_reason("snoozed", f"The handler snoozed the job until {at}.", at=at), following)
    return Found(make_reason("due-later", f"The job is due at {at}.", at=at), following)


def _blocked(job: Situation, redis: RedisView) -> Found | None:
    if job.status != Status.BLOCKED:
        return None
    number = job.open_dependencies or 0
    shown: list[DependencyShown] = [{"id": one["id"], "status": Status(one["status"])} for one in job.dependencies]
    names = ", ".join(f"{one['id']} ({one['status']})" for one in shown)
    more = f" and {number - len(shown):,} more" if number > len(shown) else ""
    detail = f"Jobs that this one depends on have not ended: {number:,}. They are {names}{more}."
    at = "" if job.is_due else f", and not before {show_moment(job.due_at)}"
    following = f"May start when all of them have ended{at}."
    if job.on_dependency_failure == "cancel":
        following += " If one of them fails or is cancelled, this job becomes CANCELLED."
    return Found(make_reason("blocked", detail, jobs=number, dependencies=shown), following)


def _redis_down(job: Situation, redis: RedisView) -> Found | None:
    if redis.problem is None:
        return None
    return Found(make_reason("redis-down", redis.problem), "Starts after Redis can be used again.")


def _queue_paused(job: Situation, redis: RedisView) -> Found | None:
    if job.queue_paused_at is None:
        return None
    at = show_moment(job.queue_paused_at)
    reason = make_reason(
        "queue-paused", f"The queue {job.queue} has been paused since {at}.", queue=job.queue, pausedAt=at
    )
    return Found(reason, f"Starts after the queue {job.queue} is resumed: POST /queues/{job.queue}/resume.")


def _no_worker(job: Situation, redis: RedisView) -> Found | None:
    if redis.problem or (redis.workers and not redis.is_suspended):
        return None
    if redis.is_suspended:
        detail = "All workers are suspended: `rq suspend` keeps them from taking jobs until `rq resume`."
        return Found(make_reason("no-worker", detail, queue=job.queue), "Starts after `rq resume`.")
    reason = make_reason("no-worker", f"No live worker serves the queue {job.queue}.", queue=job.queue)
    return Found(reason, f"Starts when a worker serves the queue {job.queue}.")


def _no_handler(job: Situation, redis: RedisView) -> Found | None:
    known = [worker.types for worker in redis.workers if worker.types is not None]
    may_be_known = len(known) < len(redis.workers)  # a stock worker does not publish its types
    is_refused = job.place is Place.AWAITS_HANDLER
    if not redis.workers or any(job.type in types for types in known) or (may_be_known and not is_refused):
        return None
    detail = f"No live worker of the queue {job.queue} has a handler for the type {job.type}."
    if may_be_known:
        detail = f"A worker of the queue {job.queue} without a handler for the type {job.type} refused the job."
    types = sorted(frozenset().union(*known))
    reason = make_reason("no-handler", detail, queue=job.queue, type=job.type, types=types)
    return Found(reason, "Starts within 10 s of when a worker that has a handler for its type has a free slot.")


def _concurrency_key(job: Situation, redis: RedisView) -> Found | None:
    if job.concurrency_key is None or not job.is_due:
        return None
    limit = job.concurrency_limit or 1
    is_withheld = job.place is Place.WITHHELD and job.queue_paused_at is None
    before = job.before if is_withheld else 0
    if job.slots + before < limit and (not is_withheld or _is_rate_full(job)):
        return None
    detail = f"Occupied slots of the concurrency key {job.concurrency_key}: {job.slots} of {limit}."
    if before:
        detail += f" Jobs with the key that come before this one: {_number(before)}."
    reason = make_reason(
        "concurrency-key",
        detail,
        key=job.concurrency_key,
        limit=limit,
        slots=job.slots,
        running=[str(id_) for id_ in job.running],
        jobs=before,
    )
    return Found(reason, "Starts when the key has a free slot, and no job with the key has been due longer.")


def _is_rate_full(job: Situation) -> bool:
    """Return True if the rate key has no slot for the job now."""
    if job.rate is None:
        return False
    (_, limit, _), use, _ = job.rate
    return use.used >= limit if job.place is Place.IN_RQ else use.wait > 0  # in RQ it has a slot of its own


def _rate_limit(job: Situation, redis: RedisView) -> Found | None:
    if job.rate is None or not job.is_due:
        return None
    (key, limit, per), use, before = job.rate
    is_withheld = job.place is Place.WITHHELD and job.queue_paused_at is None
    if not (_is_rate_full(job) or (is_withheld and job.concurrency_key is None)):
        return None
    at = show_moment(job.now + timedelta(seconds=use.wait))
    detail = f"Starts with the rate key {key} in the last {per:g} s: {_number(use.used)} of {_number(limit)}"
    detail += f"; {_number(use.in_rq)} more jobs with the key are in RQ." if use.in_rq else "."
    if before and is_withheld:
        detail += f" Jobs with the key that come before this one: {_number(before)}."
    numbers = {"limit": limit, "per": show_number(per), "used": use.used, "dispatched": use.in_rq, "jobs": before}
    following = f"A slot of the rate key is free at {at} at the earliest; it is for the job that has been due longest."
    return Found(make_reason("rate-limit", detail, key=key, at=at, **numbers), following)


def _others_before(job: Situation, redis: RedisView) -> Found | None:
    """Return the reason `behind` if jobs come before it; without any it holds only if no other reason does."""
    found = _behind(job, redis)
    is_to_run_in_turn = job.is_due and job.place in (Place.IN_RQ, Place.NOT_DISPATCHED)
    return found if is_to_run_in_turn and found.reason["jobs"] else None


def _behind(job: Situation, redis: RedisView) -> Found:
    first = {queue: count for queue in _served_before(job.queue, redis) if (count := job.in_rq.get(queue))}
    total = min(job.before + sum(first.values()), MOST_BEFORE)
    if total:
        detail = f"Jobs that come before this one: {_number(total)}; {_number(job.before)} {_BEFORE[job.place]}"
        detail += "".join(f", {_number(count)} in {queue}, which is served first" for queue, count in first.items())
        following = "Starts after these jobs, when a slot is free."
    elif job.place is Place.IN_RQ:
        detail = f"The job is the next one of the queue {job.queue}"
        following = "A worker takes the job as soon as one has a free slot."
    else:
        detail = "The job is due, and no other comes before it"
        following = f"The job is dispatched within {settings().JOBSVC_SWEEP_SECONDS:g} s."
        if job.place is Place.AWAITS_HANDLER:
            following = "A worker that has a handler for its type takes the job within 10 s, if it has a free slot."
    reason = make_reason(
        "behind",
        f"{detail}.",
        queue=job.queue,
        jobs=total,
        jobsOfQueuesBefore=first,
    )
    return Found(reason, following)


_BEFORE = {
    Place.IN_RQ: "in its own queue",
    Place.NOT_DISPATCHED: "in its own queue, or dispatched before",
    Place.WITHHELD: "withheld as well",
    Place.AWAITS_HANDLER: "of its type in its own queue",
    None: "",  # never: a waiting job has a place
}


def _served_before(queue: str, redis: RedisView) -> list[str]:
    """Return the queues that all workers of this queue serve before it; as configured if there are no workers."""
    lists: list[Sequence[str]] = [worker.queues for worker in redis.workers] or [settings().JOBSVC_QUEUES]
    first, *others = [list(takewhile(lambda name: name != queue, names)) for names in lists]
    return [name for name in first if all(name in names for names in others)]


_FINDERS: tuple[Callable[[Situation, RedisView], Found | None], ...] = (
    _blocked,
    _later,
    _redis_down,
    _queue_paused,
    _no_worker,
    _no_handler,
    _concurrency_key,
    _rate_limit,
    _others_before,
)
"""What may keep a job waiting, in order of importance."""


def _number(count: int) -> str:
    return f"{count:,}" + (" or more" if count == MOST_BEFORE else "")
