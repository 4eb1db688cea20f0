"""Offers jobs that wait for a handler to stock workers, which neither poll Postgres nor publish their types."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from jobsvc import jobs
from jobsvc.config import settings
from jobsvc.dispatch import rq_redis, rq_workers
from jobsvc.dispatch.rq_names import key
from jobsvc.dispatch.rq_workers import WorkerState
from jobsvc.jobs import Dispatch

Kind = tuple[str, str]
"""A queue and a type."""


def turn_key() -> str:
    """Return the Redis key of the lock that lets one relay at a time make offers."""
    return key("offers")


MOST_KINDS = 1000
MOST = 1000
"""Maximum number of jobs of one kind that are offered and not yet started."""


class Offers:
    """The offers of one relay: one job of each kind at first, doubled each time that workers start them.

    Halved if most of them are refused, and reset to one if all are. Refused offers of kinds that no worker starts
    cost the workers one check a second in total.
    """

    def __init__(self) -> None:
        self._limits: dict[Kind, int] = {}
        self._offered: dict[Kind, list[UUID]] = {}
        self._last: Kind = ("", "")

    def claim(self) -> list[Dispatch]:
        """Claim the jobs to dispatch now. Raises RedisError and StoreUnavailable."""
        waiting = {(one.queue, one.type) for one in jobs.awaited_types(MOST_KINDS, 1)}
        if not waiting and not self._offered:
            return []
        self._learn()
        if not waiting or not self._has_turn():
            return []
        workers = rq_workers.known()
        return self._claim([kind for kind in self._in_turn(waiting) if is_to_offer(kind, workers)])

    def _learn(self) -> None:
        """Adjust the limits to how many of the offered jobs were started or refused."""
        for kind, job_ids in list(self._offered.items()):
            found = jobs.sort_offers(job_ids)
            started = len(job_ids) - len(found.refused) - len(found.in_rq)
            limit = self._limits.get(kind, 1)
            if found.refused and not started:
                self._limits[kind] = 1
            elif len(found.refused) > started:
                self._limits[kind] = max(limit // 2, 1)
            elif started:
                self._limits[kind] = min(limit * 2, MOST)
            self._offered[kind] = found.in_rq
            if not found.in_rq:
                del self._offered[kind]

    def _has_turn(self) -> bool:
        milliseconds = int(900 * _round_seconds())  # less than a round, so that no round is lost
        return bool(rq_redis.connection().set(turn_key(), 1, nx=True, px=milliseconds))

    def _in_turn(self, waiting: Iterable[Kind]) -> list[Kind]:
        ordered = sorted(waiting)
        return [kind for kind in ordered if kind > self._last] + [kind for kind in ordered if kind <= self._last]

    def _claim(self, kinds: Sequence[Kind]) -> list[Dispatch]:
        claimed: list[Dispatch] = []
        trials = int(_round_seconds())
        for kind in kinds:
            limit = self._limits.get(kind, 1)
            if limit == 1:
                if not trials:
                    continue
                trials -= 1
                self._last = kind
            in_rq = self._offered.get(kind, [])
            if (room := limit - len(in_rq)) > 0:
                offered = jobs.claim_offers(*kind, room)
                self._offered[kind] = in_rq + [one.job_id for one in offered]
                claimed += offered
        return claimed


def _round_seconds() -> float:
    return max(settings().JOBSVC_SWEEP_SECONDS, 1.0)


def is_to_offer(kind: Kind, workers: Iterable[WorkerState]) -> bool:
    """Return True if an idle stock worker may know the type, or if no worker known to Redis has it.

    The latter because a stock worker that Redis has lost is invisible but still works. Workers of version 0.1.0 get
    no offers, since a refusal there uses up an attempt.
    """
    queue, type_ = kind
    serving = [worker for worker in workers if queue in worker.queues]
    if silent := [worker for worker in serving if worker.types is None]:
        return any(worker.is_idle_stock for worker in silent)
    return not any(worker.types and type_ in worker.types for worker in serving)
