"""What clients, workers and relays of the property tests have in common."""

from collections.abc import Callable, Collection, Sequence
from typing import Any
from uuid import UUID

from hypothesis.stateful import RuleBasedStateMachine

from jobsvc.errors import JobNotFound, JobsvcError
from jobsvc.jobs import Dispatch, EntryChange, StartedAttempt
from tests.properties.checks import Ledger
from tests.properties.sessions import BREAKPOINTS, Call, Sessions, Timing
from tests.properties.trail import Row, State, Trail

LEASE = 15.0
"""Seconds."""

MOST = 1000
"""Limit of everything that works in batches."""


class Base(RuleBasedStateMachine):
    """The jobs of one example. `state` is what was committed after the last step; `queue` is RQ's."""

    def __init__(self, trail: Trail, sessions: Sessions) -> None:
        super().__init__()
        self.trail, self.sessions = trail, sessions
        self.ledger = Ledger()
        self.queue: list[UUID] = []
        self.attempts: list[StartedAttempt] = []
        self.first_of_pair: Call | None = None
        self.is_alone = True
        self.is_racing = False
        self.nothing_may_change = False
        self.is_over = False
        self.state = State()

    def run(self, act: Callable[[], Any], check: Callable[[Any, State | None], None], timing: Timing) -> None:
        """Run a call; `check` gets its result, and the state before it if no other transaction was open."""
        is_first = not (self.is_racing or self.sessions.has_open or self.first_of_pair)
        self.is_alone = timing == Timing.ALONE and is_first
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

    def job(self, number: int, statuses: Collection[str]) -> UUID:
        """Choose a job: of these statuses, the newest first, then another one, then one that does not exist."""

        def order(job: Row) -> tuple[bool, int]:
            return job["status"] not in statuses, -UUID(job["id"]).int

        jobs = sorted(self.state.jobs.values(), key=order)
        return UUID(jobs[number]["id"]) if number < len(jobs) else UUID(int=number)

    def enqueue(self, dispatches: Sequence[Dispatch]) -> None:
        for one in dispatches:
            if one.change == EntryChange.REPLACE:
                self.queue = [job_id for job_id in self.queue if job_id != one.job_id]
            if one.is_claimed and one.wait <= 0 and one.change != EntryChange.UPDATE:
                self.queue.append(one.job_id)


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
