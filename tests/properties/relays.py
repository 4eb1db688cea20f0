"""Relays of the property tests: they dispatch jobs and do the parts of a sweep. And time passes."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from jobsvc import jobs
from jobsvc.jobs import Dispatch
from jobsvc.states import STARTABLE
from tests.properties import specs
from tests.properties.base import MOST, Base, ignore
from tests.properties.sessions import Timing
from tests.properties.trail import State


class Relays(Base):
    """What relays do."""

    @rule(is_redis_up=st.sampled_from([True, True, False]), timing=specs.timing)
    def dispatch(self, is_redis_up: bool, timing: Timing) -> None:
        """Claim what is to be dispatched, and enqueue it, or release the claims and lose the queue."""

        def check(claimed: Any, before: State | None) -> None:
            if before:
                for one in claimed:
                    job = before.jobs[str(one.job_id)]
                    assert job["status"] in STARTABLE, f"claimed, but it may not start: {job}"
            if is_redis_up:
                self.enqueue(claimed)
            else:
                self.queue.clear()
                jobs.release(one.job_id for one in claimed)

        self.run(claim_all, check, timing)

    @rule(
        act=st.sampled_from(["expire", "recover", "prune", "fold", "release", "find", "prune starts"]),
        timing=specs.timing,
    )
    def sweep(self, act: str, timing: Timing) -> None:
        """Do a part of a relay's sweep. Prune as if all that has ended had ended long ago."""
        match act:
            case "expire":
                self.run(lambda: jobs.expire(MOST), ignore, timing)
            case "recover":
                self.run(lambda: jobs.recover_lapsed(MOST, 0), ignore, timing)
            case "prune":
                self.run(lambda: jobs.prune(-3600, MOST), ignore, timing)
            case "fold":
                self.run(lambda: jobs.fold_counters(0), ignore, timing)
            case "release":
                self.run(jobs.release_pending, ignore, timing)
            case "tick":
                self.run(lambda: jobs.schedules.tick(MOST), lambda ticked, _before: self.enqueue(ticked), timing)
            case "prune starts":
                self.run(lambda: jobs.prune_starts("", MOST), ignore, timing)
            case "find":
                self.run(jobs.find_unreleased, ignore, timing)

    @rule(seconds=st.sampled_from([1, 6, 20, 60, 3600]))
    def let_time_pass(self, seconds: int) -> None:
        self.sessions.end_open()
        self.is_alone = False
        specs.move_into_past(self.trail, seconds)
        self.ledger.let_time_pass(seconds)


def claim_all() -> list[Dispatch]:
    """Claim what a sweep claims."""
    claimed = jobs.claim_due(MOST)
    for queue in specs.QUEUES:
        claimed += [*jobs.claim_resumed(queue, MOST), *jobs.claim_missing(queue, None, 15, MOST)]
    for kind in jobs.awaited_types(MOST, MOST):
        claimed += jobs.claim_offers(kind.queue, kind.type, 2)
    keys = jobs.withheld_concurrency_keys("", MOST), jobs.withheld_rate_keys("", MOST)
    return [*claimed, *jobs.claim_withheld(*keys, MOST).jobs]
