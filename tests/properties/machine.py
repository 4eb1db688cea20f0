"""Random sequences of everything that can happen to jobs, and a check of the rules after each step.

Worker, relay and client are functions of `jobsvc.jobs`, called on the real Postgres. RQ is a list of ids. A call may
run while another transaction is open, or at the same time as another one (see `sessions`).
"""

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from jobsvc import jobs
from jobsvc.jobs import NewJob, releases
from jobsvc.jobs.schedules import NewSchedule
from jobsvc.states import Outcome
from tests.properties import specs
from tests.properties.base import LEASE, MOST
from tests.properties.clients import Clients
from tests.properties.relays import Relays, claim_all
from tests.properties.sessions import Timing
from tests.properties.specs import Wanted
from tests.properties.workers import Workers

MAX_LEVELS = releases.MAX_LEVELS
LAST_ROUNDS = 300
"""More rounds than any example needs to end all its jobs."""


class Machine(Clients, Workers, Relays):
    """All that happens to the jobs of one example."""

    steps = 0
    """Number of steps of all examples."""

    @initialize(
        wanted=st.lists(specs.wanted, min_size=3, max_size=6),
        scheduled=specs.new_job,
        levels=st.sampled_from([10, 1]),
    )
    def begin(self, wanted: list[Wanted], scheduled: NewJob, levels: int) -> None:
        """Start with a few jobs and a schedule.

        levels: how deep an end cancels dependents; the relay goes on from there.
        """
        releases.MAX_LEVELS = levels
        self.trail.empty()
        jobs.schedules.put(NewSchedule("each minute", "* * * * *", "UTC", True, {}, scheduled))
        self.state = self.trail.read()
        self.submit(wanted, Timing.ALONE)

    @rule(
        acts=st.tuples(specs.racing, specs.racing),
        timing=specs.first_timing,
        numbers=st.tuples(specs.numbers, specs.numbers),
        endings=specs.endings,
        wanted=st.lists(specs.wanted, min_size=1, max_size=2),
    )
    def race(
        self,
        acts: tuple[str, str],
        timing: Timing,
        numbers: tuple[list[int], list[int]],
        endings: list[tuple[Outcome, float | None]],
        wanted: list[Wanted],
    ) -> None:
        """Do two things at once, or the second while the first one's transaction is open."""
        self.is_racing = True
        for act, some, how in zip(acts, numbers, (timing, Timing.ALONE), strict=True):
            match act:
                case "start":
                    self.start_any(some, "one", None, how)
                case "finish":
                    self.finish(some, endings, how)
                case "submit":
                    self.submit(wanted, how)
                case "release":
                    self.sweep("release", how)
                case _:
                    self.act_on_job(act, some[0], how)
        self.is_racing = False

    @rule()  # always allowed: what is allowed must not depend on the time that a call took
    def end_open(self) -> None:
        self.is_alone = False
        self.sessions.end_open()

    @invariant()
    def every_promise_is_kept(self) -> None:
        Machine.steps += not self.is_over
        self.state = self.trail.read()
        self.ledger.add(self.state, self.is_alone)
        assert not (self.nothing_may_change and self.state.changes), f"refused, but stored: {self.state.changes}"
        self.nothing_may_change = False
        self.ledger.check(self.state)

    def teardown(self) -> None:
        """End the open transaction; then each job that has not ended must be dispatched, run, and end."""
        self.is_over = True
        if not self.state.now:  # Hypothesis gave up before the first step
            return
        try:
            if self.first_of_pair:
                self.first_of_pair.check(self.first_of_pair.run())
            self.sessions.end_open()
            for queue in specs.QUEUES:
                jobs.resume(queue)
            for _ in range(LAST_ROUNDS):
                self.is_alone = False
                self.every_promise_is_kept()
                if not self.state.unfinished():
                    return
                self._work_once()
            raise AssertionError(f"jobs that do not end: {self.state.unfinished()}")
        finally:
            self.sessions.end_open()
            releases.MAX_LEVELS = MAX_LEVELS

    def _work_once(self) -> None:
        specs.move_into_past(self.trail, 3600)
        self.ledger.let_time_pass(3600)
        jobs.expire(MOST)
        jobs.recover_lapsed(MOST, 0)
        while jobs.release_pending():
            pass
        self.enqueue(claim_all())
        ids, self.queue = [*self.queue, *jobs.claim_awaiting(specs.QUEUES, specs.TYPES, MOST)], []
        jobs.finish([jobs.completed(one.job_id, one.fence) for one in jobs.start(ids, "last", LEASE)])
