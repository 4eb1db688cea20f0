"""Workers of the property tests: they start, renew and finish attempts."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import rule

from jobsvc import jobs
from jobsvc.jobs import AttemptResult, Failure, StartedAttempt
from jobsvc.states import STARTABLE, Outcome, Status
from tests.properties import specs
from tests.properties.base import LEASE, Base, ignore
from tests.properties.sessions import Timing
from tests.properties.trail import Row, State


class Workers(Base):
    """What workers do; `attempts` are all that were started."""

    @rule(count=st.integers(1, 10), worker=specs.worker, types=specs.known_types, timing=specs.timing)
    def start_queued(self, count: int, worker: str, types: list[str] | None, timing: Timing) -> None:
        taken, self.queue = self.queue[:count], self.queue[count:]
        self.start(taken, worker, types, timing)

    @rule(numbers=specs.numbers, worker=specs.worker, types=specs.known_types, timing=specs.timing)
    def start_any(self, numbers: Sequence[int], worker: str, types: list[str] | None, timing: Timing) -> None:
        self.start(list(dict.fromkeys(self.job(n, STARTABLE) for n in numbers)), worker, types, timing)

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

    @rule(numbers=specs.numbers, endings=specs.endings, timing=specs.timing)
    def finish(self, numbers: Sequence[int], endings: Sequence[tuple[Outcome, float | None]], timing: Timing) -> None:
        """Finish attempts: for the lowest numbers running ones, the newest first; then stale ones."""

        def order(number: int) -> tuple[bool, int]:
            return not running_of(self.state, [self.attempts[number]]), -number

        ordered = sorted(range(len(self.attempts)), key=order)
        chosen = [self.attempts[ordered[n]] for n in dict.fromkeys(numbers) if n < len(ordered)]
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
