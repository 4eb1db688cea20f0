"""Clients of the property tests: they submit, change, cancel, retry and delete jobs."""

from collections.abc import Callable
from graphlib import CycleError
from typing import Any
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import rule

from jobsvc import jobs
from jobsvc.errors import JobNotFound, JobsvcError, UniqueKeyConflict, UniqueKeyTaken, UnknownDependencies, WrongState
from jobsvc.jobs import Changes, Filter, NewJob, OnConflict
from jobsvc.states import ENDED, WAITING, Status
from tests.properties import specs
from tests.properties.base import Base, assert_error, error_for, ignore, status_of
from tests.properties.sessions import Timing
from tests.properties.specs import Wanted
from tests.properties.trail import State

UNFINISHED = (*WAITING, Status.PROCESSING)
RETRYABLE = (Status.FAILED, Status.CANCELLED)


class Clients(Base):
    """What clients do."""

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
        ids = [self.job(n, UNFINISHED) for n in wanted.on_jobs if n < len(self.state.jobs)]
        positions = [n for n in wanted.on_positions if n < count and n != position]
        if not ids and not positions:
            return wanted.job
        return wanted.job._replace(depends_on=[*ids, *positions], on_dependency_failure=wanted.on_failure)

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
        job_id = self.job(number, WAITING)

        def check(result: Any, before: State | None) -> None:
            if before and isinstance(result, JobsvcError):
                assert_error(result, error_for(before, job_id, WrongState))
                assert status_of(before, job_id) not in WAITING
            if not isinstance(result, JobsvcError) and result.dispatch:
                self.enqueue([result.dispatch])

        self.run(lambda: jobs.amend(job_id, changes), check, timing)

    @rule(
        act=st.sampled_from(["cancel", "retry", "retry", "delete", "announce"]),
        number=specs.number,
        timing=specs.timing,
    )
    def act_on_job(self, act: str, number: int, timing: Timing) -> None:
        match act:
            case "cancel":
                self.cancel(self.job(number, UNFINISHED), timing)
            case "retry":
                self.retry(self.job(number, RETRYABLE), timing)
            case "delete":
                self.delete(self.job(number, ENDED), timing)
            case "announce":
                self.announce_again(self.job(number, ENDED), timing)

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
