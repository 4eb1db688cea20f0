"""Random sequences of everything that can happen to jobs, and a check of the rules after each step.

Worker, relay and client are functions of `jobsvc.jobs`, called on the real Postgres. RQ is a list of ids. A call may
run while another transaction is open, or at the same time as another one (see `sessions`).
"""

from collections.abc import Callable, Sequence
from graphlib import CycleError
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jobsvc import jobs
from jobsvc.errors import JobNotFound, JobsvcError, UniqueKeyConflict, UniqueKeyTaken, UnknownDependencies, WrongState
from jobsvc.jobs import (
    AttemptResult,
    Changes,
    Dispatch,
    EntryChange,
    Failure,
    Filter,
    NewJob,
    OnConflict,
    StartedAttempt,
    releases,
)
from jobsvc.jobs.schedules import NewSchedule
from jobsvc.states import ENDED, STARTABLE, WAITING, Outcome, Status
from tests.properties import specs
from tests.properties.checks import Ledger
from tests.properties.sessions import BREAKPOINTS, Call, Sessions, Timing
from tests.properties.specs import Wanted
from tests.properties.trail import Row, State, Trail

LEASE = 15.0
RETRYABLE = (Status.FAILED, Status.CANCELLED)
MAX_LEVELS = releases.MAX_LEVELS
MOST = 1000
"""Limit of everything that works in batches."""

LAST_ROUNDS = 300
"""More rounds than any example needs to end all its jobs."""


class Machine(RuleBasedStateMachine):
    """The jobs of one example. `state` is what was committed after the last step."""

    steps = 0
    """Number of steps of all examples."""

    def __init__(self, trail: Trail, sessions: Sessions) -> None:
        super().__init__()
        self.trail, self.sessions = trail, sessions
        self.ledger = Ledger()
        self.queue: list[UUID] = []
        self.attempts: list[StartedAttempt] = []
        self.first_of_pair: Call | None = None
        self.is_alone = True
        self.nothing_may_change = False
        self.is_over = False
        self.state = State()

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

    def run(self, act: Callable[[], Any], check: Callable[[Any, State | None], None], timing: Timing) -> None:
        """Run a call; `check` gets its result, and the state before it if no other transaction was open."""
        self.is_alone = timing == Timing.ALONE and not self.sessions.has_open and not self.first_of_pair
        before = self.state if self.is_alone else None

        def checked(result: Any) -> None:
            self.nothing_may_change = before is not None and isinstance(result, JobsvcError)
            check(result, before)

        call = Call(act, checked)
        if self.first_of_pair:
            first, self.first_of_pair = self.first_of_pair, None
            self.sessions.run_together(first, call)
        elif timing == Timing.ALONE or self.sessions.has_open:
            self.sessions.run(call)
        elif timing == Timing.WITH_NEXT:
            self.first_of_pair = call
        else:
            self.sessions.run_to(call, BREAKPOINTS[timing])

    @rule()  # always allowed: what is allowed must not depend on the time that a call took
    def end_open(self) -> None:
        self.is_alone = False
        self.sessions.end_open()

    # Clients.

    @rule(wanted=st.lists(specs.wanted, min_size=1, max_size=4), timing=specs.timing)
    def submit(self, wanted: list[Wanted], timing: Timing) -> None:
        new = [self.new_job(one, n, len(wanted)) for n, one in enumerate(wanted)]

        def check(submitted: Any, before: State | None) -> None:
            if isinstance(submitted, JobsvcError):
                assert isinstance(submitted, UniqueKeyConflict | UnknownDependencies)
                return
            if isinstance(submitted, CycleError):
                return
            self.enqueue([one.dispatch for one in submitted if one.dispatch])
            if before:
                known = {one.job_id for one in submitted if str(one.job_id) in before.jobs}
                assert len(submitted) == len(wanted)
                assert all(not one.is_new for one in submitted if one.job_id in known)
                assert all(status_of(before, job_id) not in ENDED for job_id in known)

        self.run(lambda: jobs.submit(new), check, timing)

    def new_job(self, wanted: Wanted, position: int, count: int) -> NewJob:
        """Return the job with what it depends on: jobs that exist, and others of its request."""
        ids = [self.job(n) for n in wanted.on_jobs if n < len(self.state.jobs)]
        positions = [n for n in wanted.on_positions if n < count and n != position]
        if not ids and not positions:
            return wanted.job
        return wanted.job._replace(depends_on=[*ids, *positions], on_dependency_failure=wanted.on_failure)

    def job(self, number: int) -> UUID:
        """Choose a job, the newest for 0; one that does not exist if there are too few."""
        ids = sorted(self.state.jobs, reverse=True)
        return UUID(ids[number]) if number < len(ids) else UUID(int=number)

    @rule(
        options=specs.sql_options,
        on_conflict=st.sampled_from(OnConflict),
        commits=st.sampled_from([True, True, False]),
        timing=specs.timing,
    )
    def enqueue_in_sql(self, options: dict[str, Any], on_conflict: OnConflict, commits: bool, timing: Timing) -> None:
        """Enqueue in a transaction of an application, which is committed or rolled back."""
        given = options | ({"onConflict": str(on_conflict)} if "uniqueKey" in options else {})

        def check(result: Any, before: State | None) -> None:
            if before and not commits:
                self.nothing_may_change = True

        self.run(lambda: specs.enqueue_in_sql(given, commits), check, timing)

    @rule(number=specs.number, changes=specs.changes, timing=specs.timing)
    def amend(self, number: int, changes: Changes, timing: Timing) -> None:
        job_id = self.job(number)

        def check(result: Any, before: State | None) -> None:
            if before and isinstance(result, JobsvcError):
                assert_error(result, error_for(before, job_id, WrongState))
                assert status_of(before, job_id) not in WAITING
            if not isinstance(result, JobsvcError) and result.dispatch:
                self.enqueue([result.dispatch])

        self.run(lambda: jobs.amend(job_id, changes), check, timing)

    @rule(act=st.sampled_from(["cancel", "retry", "delete", "announce"]), number=specs.number, timing=specs.timing)
    def act_on_job(self, act: str, number: int, timing: Timing) -> None:
        job_id = self.job(number)
        match act:
            case "cancel":
                self.cancel(job_id, timing)
            case "retry":
                self.retry(job_id, timing)
            case "delete":
                self.delete(job_id, timing)
            case "announce":
                self.announce_again(job_id, timing)

    def cancel(self, job_id: UUID, timing: Timing) -> None:

        def check(result: Any, before: State | None) -> None:
            if not before:
                return
            status = status_of(before, job_id)
            if status in WAITING:
                assert result.status == Status.CANCELLED
            elif status == Status.PROCESSING:
                assert result.status == Status.PROCESSING
                assert result.cancel_requested_at
            else:
                assert_error(result, WrongState if status else JobNotFound)

        self.run(lambda: jobs.cancel(job_id), check, timing)

    def retry(self, job_id: UUID, timing: Timing) -> None:

        def check(result: Any, before: State | None) -> None:
            if not isinstance(result, JobsvcError):
                self.enqueue([result[1]] if result[1] else [])
            elif before and status_of(before, job_id) in RETRYABLE:
                assert isinstance(result, UniqueKeyTaken | WrongState)
            elif before:
                assert_error(result, error_for(before, job_id, WrongState))

        self.run(lambda: jobs.retry(job_id), check, timing)

    def delete(self, job_id: UUID, timing: Timing) -> None:

        def check(result: Any, before: State | None) -> None:
            if before and result is None:
                assert status_of(before, job_id) in ENDED
            elif before:
                assert_error(result, error_for(before, job_id, WrongState))

        self.run(lambda: jobs.remove(job_id), check, timing)

    def announce_again(self, job_id: UUID, timing: Timing) -> None:

        def check(result: Any, before: State | None) -> None:
            if before and isinstance(result, JobsvcError):
                assert_error(result, error_for(before, job_id, WrongState))

        self.run(lambda: jobs.announce_again(job_id), check, timing)

    @rule(act=st.sampled_from(["cancel", "retry", "delete"]), wanted=specs.filters, timing=specs.timing)
    def act_on_all(self, act: str, wanted: Filter, timing: Timing) -> None:
        def retried(batches: Any, _before: State | None) -> None:
            for batch in batches:
                self.enqueue([one.dispatch for one in batch if one.dispatch])

        match act:
            case "cancel":
                self.run(lambda: list(jobs.cancel_all(wanted)), ignore, timing)
            case "retry":
                self.run(lambda: list(jobs.retry_all(wanted)), retried, timing)
            case "delete":
                self.run(lambda: list(jobs.remove_all(wanted)), ignore, timing)

    @rule(act=st.sampled_from([jobs.pause, jobs.resume]), queue=specs.queue, timing=specs.timing)
    def pause_or_resume(self, act: Callable[[str], None], queue: str, timing: Timing) -> None:
        self.run(lambda: act(queue), ignore, timing)

    # Workers.

    @rule(count=st.integers(1, 10), worker=specs.worker, types=specs.known_types, timing=specs.timing)
    def start_queued(self, count: int, worker: str, types: list[str] | None, timing: Timing) -> None:
        taken, self.queue = self.queue[:count], self.queue[count:]
        self.start(taken, worker, types, timing)

    @rule(numbers=specs.numbers, worker=specs.worker, types=specs.known_types, timing=specs.timing)
    def start_any(self, numbers: Sequence[int], worker: str, types: list[str] | None, timing: Timing) -> None:
        self.start(list(dict.fromkeys(map(self.job, numbers))), worker, types, timing)

    def start(self, job_ids: list[UUID], worker: str, types: list[str] | None, timing: Timing) -> None:
        def check(started: Any, before: State | None) -> None:
            self.attempts += started
            if before:
                ids = {one.job_id for one in started}
                for job_id in job_ids:
                    check_start(before.jobs.get(str(job_id)), job_id in ids, types, before)

        self.run(lambda: jobs.start(job_ids, worker, LEASE, types), check, timing)

    @rule(count=st.integers(1, 10), worker=specs.worker, timing=specs.timing)
    def start_awaiting(self, count: int, worker: str, timing: Timing) -> None:
        def act() -> list[StartedAttempt]:
            claimed = jobs.claim_awaiting(specs.QUEUES, specs.TYPES, count)
            return jobs.start(claimed, worker, LEASE)

        self.run(act, lambda started, _before: self.attempts.extend(started), timing)

    @rule(numbers=specs.numbers, endings=st.lists(specs.ending, min_size=4, max_size=4), timing=specs.timing)
    def finish(self, numbers: Sequence[int], endings: Sequence[tuple[Outcome, float | None]], timing: Timing) -> None:
        """Finish attempts, the newest for 0, stale ones too."""
        chosen = [self.attempts[-1 - n] for n in dict.fromkeys(numbers) if n < len(self.attempts)]
        results = [result_of(one, *ending) for one, ending in zip(chosen, endings, strict=False)]

        def check(stored: Any, before: State | None) -> None:
            if before:
                assert {one.job_id for one in stored} == running_of(before, chosen)

        self.run(lambda: jobs.finish(results), check, timing)

    @rule(act=st.sampled_from(["renew", "undo"]), worker=specs.worker, timing=specs.timing)
    def renew_or_undo(self, act: str, worker: str, timing: Timing) -> None:
        newest = self.attempts[-5:]

        def check(renewed: Any, before: State | None) -> None:
            if before:
                assert renewed == running_of(before, newest)

        match act:
            case "renew":
                self.run(lambda: jobs.renew(newest, LEASE), check, timing)
            case "undo":
                self.run(lambda: jobs.undo_starts([one.job_id for one in newest], worker), ignore, timing)

    # Relays.

    def enqueue(self, dispatches: Sequence[Dispatch]) -> None:
        for one in dispatches:
            if one.change == EntryChange.REPLACE:
                self.queue = [job_id for job_id in self.queue if job_id != one.job_id]
            if one.is_claimed and one.wait <= 0 and one.change != EntryChange.UPDATE:
                self.queue.append(one.job_id)

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

    # The rules.

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


def claim_all() -> list[Dispatch]:
    """Claim what a sweep claims."""
    claimed = jobs.claim_due(MOST)
    for queue in specs.QUEUES:
        claimed += [*jobs.claim_resumed(queue, MOST), *jobs.claim_missing(queue, None, 15, MOST)]
    for kind in jobs.awaited_types(MOST, MOST):
        claimed += jobs.claim_offers(kind.queue, kind.type, 2)
    keys = jobs.withheld_concurrency_keys("", MOST), jobs.withheld_rate_keys("", MOST)
    return [*claimed, *jobs.claim_withheld(*keys, MOST).jobs]


def ignore(_result: Any, _before: State | None) -> None:
    """Check only the rules for every step."""


def status_of(state: State, job_id: UUID) -> str | None:
    """Return the job's status; None if there is no such job."""
    return state.jobs[str(job_id)]["status"] if str(job_id) in state.jobs else None


def error_for(state: State, job_id: UUID, error: type[JobsvcError]) -> type[JobsvcError]:
    """Return the error of an action that the job does not allow."""
    return error if str(job_id) in state.jobs else JobNotFound


def assert_error(result: Any, error: type[JobsvcError]) -> None:
    assert type(result) is error, f"expected {error.__name__}, got {result!r}"


def running_of(state: State, attempts: Sequence[StartedAttempt]) -> set[UUID]:
    """Return the jobs of which these attempts are running."""
    found = [(one, state.jobs.get(str(one.job_id), {})) for one in attempts]
    return {one.job_id for one, job in found if (job.get("status"), job.get("fence")) == (Status.PROCESSING, one.fence)}


def check_start(job: Row | None, has_started: bool, types: list[str] | None, before: State) -> None:
    may_start = (
        job is not None
        and job["status"] in STARTABLE
        and before.has_come(job["due_at"])
        and not before.has_come(job["expires_at"])
        and job["queue"] not in before.paused
        and (types is None or job["type"] in types)
    )
    assert may_start or not has_started, f"started: {job}"
    if job and not job["concurrency_key"] and not job["rate_key"]:
        assert has_started or not may_start, f"not started: {job}"


def result_of(attempt: StartedAttempt, outcome: Outcome, delay: float | None) -> AttemptResult:
    failure = None if outcome in (Outcome.COMPLETED, Outcome.SNOOZED) else Failure("ValueError", "no", "trace")
    return AttemptResult(attempt.job_id, attempt.fence, outcome, failure=failure, delay=delay)
