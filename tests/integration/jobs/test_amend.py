"""Changes of waiting jobs: what remains in RQ's entry, and races with starts, cancels, expiries and claims."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from jobsvc import jobs
from jobsvc.errors import JobNotFound, UniqueKeyConflict, VersionMismatch, WrongState
from jobsvc.jobs import Changes, EntryChange
from jobsvc.states import Outcome, Status
from tests.integration.factories import LEASE, dispatches, new, outcome, sql, started, submit
from tests.integration.locking import TAKE, behind_the_lock, in_parallel


def dispatched_at(job_id: UUID) -> Any:
    [row] = sql(
        "SELECT dispatched_at::text AS at, dispatched_at >= due_at AS is_dispatched FROM jobs WHERE id = :id", id=job_id
    )
    return row


def change(job_id: UUID, changes: Changes) -> EntryChange | None:
    """Change the job; returns what the dispatch does to RQ's entry, None without a dispatch."""
    dispatch = jobs.amend(job_id, changes).dispatch
    return dispatch.change if dispatch else None


@pytest.mark.parametrize(
    "changes", [{"payload": {"steps": 2}}, {"tags": ["a"]}, {"expires_in": 5.0}, {"tags": None, "expires_in": None}]
)
def test_change_that_rq_does_not_hold_leaves_its_entry(changes: Changes) -> None:
    for job_id in (submit(), submit(delay=60)):
        before = dispatched_at(job_id)
        assert jobs.amend(job_id, changes).dispatch is None
        assert dispatched_at(job_id) == before


@pytest.mark.parametrize(
    "changes", [{"timeout": 9.0}, {"retry_intervals": [1.0]}, {"timeout": 9.0, "queue": "default"}]
)
def test_due_job_keeps_its_place_in_its_queue(changes: Changes) -> None:
    job_id = submit()
    before = dispatched_at(job_id)
    assert change(job_id, changes) is EntryChange.UPDATE
    assert dispatched_at(job_id) == before
    assert change(job_id, {"delay": None, "run_at": None}) is None
    assert dispatched_at(job_id).is_dispatched


@pytest.mark.parametrize("changes", [{"queue": "low"}, {"queue": "low", "delay": 0.0}])
def test_due_job_is_dispatched_anew_to_its_new_queue(changes: Changes) -> None:
    job_id = submit()
    _, dispatch = jobs.amend(job_id, changes)
    assert dispatch
    assert (dispatch.queue, dispatch.change, dispatch.is_claimed) == ("low", EntryChange.REPLACE, True)
    assert dispatch.wait <= 0
    assert dispatched_at(job_id).is_dispatched


def test_postponed_job_is_claimed_at_its_new_time_only() -> None:
    job_id = submit()
    _, dispatch = jobs.amend(job_id, {"delay": 60.0, "run_at": None})
    assert dispatch
    assert (dispatch.change, 59 < dispatch.wait <= 60) == (EntryChange.REPLACE, True)
    assert dispatched_at(job_id).at is None
    assert jobs.claim_due(10) == []
    assert jobs.start([job_id], "w", LEASE) == []


def test_job_that_was_due_later_is_claimed_for_the_caller() -> None:
    job_id = submit(delay=60)
    _, dispatch = jobs.amend(job_id, {"delay": None, "run_at": None})
    assert dispatch
    assert (dispatch.is_claimed, dispatch.wait <= 0) == (True, True)
    assert jobs.claim_due(10) == []


def test_job_with_a_key_or_of_a_paused_queue_is_left_to_the_relay() -> None:
    jobs.pause("low")
    for job_id in (submit(concurrency_key="k", concurrency_limit=1, delay=60), submit(queue="high", delay=60)):
        _, dispatch = jobs.amend(job_id, {"delay": None, "run_at": None, "queue": "low"})
        assert dispatch
        assert (dispatch.is_claimed, dispatched_at(job_id).at) == (False, None)
    assert jobs.claim_due(10) == []
    sql("UPDATE jobs SET queue = 'default'")
    assert [dispatched_at(job_id).at for (job_id,) in sql("SELECT id FROM jobs")] == ["infinity"] * 2


def test_withheld_job_stays_withheld_until_its_queue_changes() -> None:
    jobs.pause("low")
    job_id = submit(queue="low")
    assert jobs.claim_due(10) == []
    assert dispatched_at(job_id).at == "infinity"
    change(job_id, {"timeout": 5.0})
    assert dispatched_at(job_id).at == "infinity"
    assert change(job_id, {"queue": "high"}) is EntryChange.REPLACE
    assert dispatched_at(job_id).at != "infinity"


def test_moved_job_at_the_head_of_its_old_queue_makes_no_job_missing() -> None:
    waits, moved = submit(), submit()
    jobs.amend(moved, {"queue": "low"})
    sql(
        "UPDATE jobs SET due_at = due_at - interval '2 h', dispatched_at = now() - interval '1 h' WHERE id = :id",
        id=waits,
    )
    assert jobs.claim_missing("default", moved, 1, 10) == []
    assert [one.job_id for one in jobs.claim_missing("default", None, 1, 10)] == [waits]


def test_blocked_job_is_changed_and_not_dispatched() -> None:
    job_id = submit()
    sql("UPDATE jobs SET status = 'BLOCKED', dispatched_at = NULL WHERE id = :id", id=job_id)
    job, dispatch = jobs.amend(job_id, {"delay": 5.0, "run_at": None, "queue": "low", "timeout": 3.0})
    assert (job.status, job.queue, job.timeout, dispatch) == (Status.BLOCKED, "low", 3.0, None)
    assert dispatched_at(job_id).at is None


def test_intervals_left_are_those_of_the_change() -> None:
    start = started(retry_intervals=[100.0, 200.0])
    jobs.finish([outcome(start, Outcome.FAILED)])
    job, _ = jobs.amend(start.job_id, {"retry_intervals": [7.0, 8.0], "delay": None, "run_at": None})
    assert (job.status, job.max_attempts, job.retry_intervals) == (Status.RETRYING, 4, [7.0, 8.0])
    for interval, left in ((7.0, [8.0]), (8.0, [])):
        [again] = jobs.start([start.job_id], "w", LEASE)
        [transition] = jobs.finish([outcome(again, Outcome.FAILED)])
        [row] = sql("SELECT extract(epoch FROM due_at - now()) AS wait FROM jobs")
        assert interval - 1 < row.wait <= interval
        assert transition.intervals_left[1:] == left
        sql("UPDATE jobs SET due_at = now()")
    [last] = jobs.start([start.job_id], "w", LEASE)
    [transition] = jobs.finish([outcome(last, Outcome.FAILED)])
    assert (transition.status, last.attempt) == (Status.FAILED, 4)


def test_errors_are_told_apart() -> None:
    with pytest.raises(JobNotFound):
        jobs.amend(uuid4(), {"timeout": 5.0})
    job_id = submit()
    with pytest.raises(VersionMismatch):
        jobs.amend(job_id, {"timeout": 5.0}, frozenset({7}))
    assert jobs.amend(job_id, {"timeout": 5.0}, frozenset({0})).job.version == 1
    jobs.cancel(job_id)
    for changes in ({"timeout": 6.0}, {}):
        with pytest.raises(WrongState, match="the job was CANCELLED"):
            jobs.amend(job_id, changes)  # type: ignore[arg-type]


def test_start_fits_the_worker() -> None:
    """A worker that has an entry from before the change starts nothing that it doesn't serve."""
    plain, keyed = submit(timeout=30), submit(timeout=30, concurrency_key="k", concurrency_limit=1)
    for job_id in (plain, keyed):
        assert jobs.start([job_id], "w", LEASE, queues=["high", "low"]) == []
        assert jobs.start([job_id], "w", LEASE, longest=29.0) == []
        assert dispatched_at(job_id).at != "infinity"
        assert len(jobs.start([job_id], "w", LEASE, queues=["default"], longest=30.0)) == 1


def test_started_job_is_not_changed() -> None:
    job_id = submit()
    with pytest.raises(WrongState, match="the job was PROCESSING"):
        behind_the_lock(TAKE, lambda: jobs.amend(job_id, {"payload": {"steps": 9}}), id=job_id)
    assert jobs.get(job_id).payload == {}


POSTPONE = "UPDATE jobs SET due_at = now() + interval '1 h', dispatched_at = NULL WHERE id = :id"
MOVE = "UPDATE jobs SET queue = 'low' WHERE id = :id"


def test_start_that_waits_for_a_change_checks_the_changed_row() -> None:
    job_id = submit()
    assert behind_the_lock(POSTPONE, lambda: jobs.start([job_id], "w", LEASE, queues=["default"]), id=job_id) == []
    moved = submit()
    assert behind_the_lock(MOVE, lambda: jobs.start([moved], "w", LEASE, queues=["default"]), id=moved) == []
    [start] = behind_the_lock(MOVE, lambda: jobs.start([moved], "w", LEASE, queues=["low"]), id=moved)
    assert start.queue == "low"


def test_change_after_a_cancel_or_an_expiry_is_refused() -> None:
    for statement in (
        "UPDATE jobs SET status = 'CANCELLED', finished_at = now() WHERE id = :id",
        "UPDATE jobs SET status = 'FAILED', finished_at = now() WHERE id = :id",
    ):
        job_id = submit()
        with pytest.raises(WrongState):
            behind_the_lock(statement, lambda job_id=job_id: jobs.amend(job_id, {"timeout": 1.0}), id=job_id)  # type: ignore[misc]


def test_lifted_expiry_saves_a_job_that_has_not_expired_yet() -> None:
    job_id = submit(expires_in=0.001)
    jobs.amend(job_id, {"expires_in": None})
    assert jobs.expire(10) == 0
    assert jobs.get(job_id).status == Status.PENDING


def test_expiry_of_a_started_job_is_only_shown() -> None:
    start = started()
    jobs.finish([outcome(start, Outcome.SNOOZED, delay=0)])  # attempts is 0 again
    job, _ = jobs.amend(start.job_id, {"expires_in": 0.001})
    assert (job.expires_at, job.expiry_met is not None, job.attempts) == (None, True, 0)
    assert jobs.expire(10) == 0
    returned = started()
    jobs.undo_starts([returned.job_id], "worker")  # its handler was not called
    job, _ = jobs.amend(returned.job_id, {"expires_in": 0.001})
    assert (job.expires_at is not None, job.expiry_met) == (True, None)
    assert jobs.expire(10) == 1


def test_each_of_many_concurrent_changes_is_applied_whole() -> None:
    job_id = submit(delay=60)
    number = iter(range(100))

    def act() -> None:
        mine = next(number)
        jobs.amend(job_id, {"payload": {"steps": mine}, "tags": [str(mine)], "timeout": float(mine + 1)})

    in_parallel(20, act)
    job = jobs.get(job_id)
    assert job.version == 20
    assert (job.tags, job.timeout) == ([str(job.payload["steps"])], float(job.payload["steps"] + 1))


def test_concurrent_starts_and_changes_lose_nothing() -> None:
    """What starts is what the last accepted change left, and a change after the start is refused."""
    for _ in range(20):
        job_id = submit()
        accepted: list[int] = []
        number = iter(range(100))

        def act(job_id: UUID = job_id, accepted: list[int] = accepted, number: Any = number) -> Any:
            mine = next(number)
            if mine == 5:
                return jobs.start([job_id], "w", LEASE, queues=["default"])
            try:
                jobs.amend(job_id, {"payload": {"steps": mine}})
            except WrongState:
                return None
            accepted.append(mine)
            return None

        [start] = [one[0] for one in in_parallel(10, act) if one]
        assert jobs.get(job_id).payload == start.payload
        assert start.payload == {} if not accepted else start.payload["steps"] in accepted


def test_batches_that_replace_each_others_jobs_do_not_deadlock() -> None:
    keys = [f"k{number}" for number in range(20)]
    for key in keys:
        submit(unique_key=key, delay=60)
    turns = iter(range(100))

    def act() -> None:
        order = keys if next(turns) % 2 else keys[::-1]
        made = jobs.submit(
            [new(unique_key=key, on_conflict="replace", delay=60, tags=[str(len(order))]) for key in order]
        )
        assert not any(one.is_new for one in made)

    for _ in range(5):
        in_parallel(8, act)
    assert sql("SELECT count(*) AS n FROM jobs")[0].n == len(keys)


def test_refused_replacement_changes_no_job_of_the_batch() -> None:
    waits = submit(unique_key="waits", delay=60)
    runs = started(unique_key="runs")
    replacing = [new(unique_key=key, on_conflict="replace", payload={"steps": 9}) for key in ("waits", "runs")]
    with pytest.raises(UniqueKeyConflict) as error:
        jobs.submit([new(), *replacing])
    assert (error.value.holder, list(error.value.refusals)) == (runs.job_id, [2])
    assert jobs.get(waits).payload == {}
    assert sql("SELECT count(*) AS n FROM jobs")[0].n == 2


def test_replacement_waits_for_the_start_of_the_job_and_is_refused() -> None:
    job_id = submit(unique_key="k")
    [replacing] = [new(unique_key="k", on_conflict="replace", payload={"steps": 9})]
    with pytest.raises(UniqueKeyConflict, match="has started"):
        behind_the_lock(TAKE, lambda: jobs.submit([replacing]), id=job_id)
    ended = submit(unique_key="other")
    end = "UPDATE jobs SET status = 'CANCELLED', finished_at = now() WHERE id = :id"
    replacing = replacing._replace(unique_key="other")
    [made] = behind_the_lock(end, lambda: jobs.submit([replacing]), id=ended)
    assert (made.is_new, jobs.get(made.job_id).payload) == (True, {"steps": 9})


def test_of_several_new_jobs_with_one_key_one_is_dispatched_with_the_last_plan() -> None:
    batch = [
        new(unique_key="k", queue=queue, timeout=timeout, on_conflict="replace", payload={"steps": 1})
        for queue, timeout in (("high", 5), ("low", 6), ("low", 7))
    ]
    [dispatch] = dispatches(batch)
    assert (dispatch.queue, dispatch.timeout, dispatch.change) == ("low", 7, None)
