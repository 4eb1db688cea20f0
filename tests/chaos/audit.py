"""The audit after a run: checks every accepted job and every run against each promise."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extras import NamedTupleCursor

from tests.chaos import audit_limits, audit_workflows
from tests.chaos.account import Account
from tests.chaos.deployment import LEASE, SHUTDOWN
from tests.chaos.faults import Injection
from tests.chaos.load import Accepted
from tests.chaos.moves import Move

EARLY = 0.005
"""Seconds by which a clock may be read too early."""

STORING = 2.0
"""Seconds in which an outcome is stored, while Postgres is there."""

NOTICING = 1.5
"""Seconds in which a worker notices that its pool has died."""

LEAVING = NOTICING + SHUTDOWN + 3
"""Seconds in which a stopping worker ends and stores its results."""

ORPHANED = 1
"""The parent's pid of a process whose parent has died."""

ENDED = ("COMPLETED", "FAILED", "CANCELLED")


@dataclass
class Run:
    """One run of a handler, as the journal has it. Times are seconds since the epoch."""

    job_id: str
    fence: int
    started_at: float
    pids: list[int]
    ended_at: float | None = None
    end: str | None = None
    started_twice: bool = False
    mark: int = 0


def read_journal(path: Path) -> dict[str, list[Run]]:
    """The runs of each job, in the order of their fences."""
    runs: dict[tuple[str, int], Run] = {}
    for line in path.read_text().splitlines():
        note = json.loads(line)
        run = runs.get((note["job"], note["fence"]))
        if run is None:
            runs[note["job"], note["fence"]] = Run(
                note["job"], note["fence"], note["at"], note["pids"], mark=note["mark"]
            )
        elif note["event"] == "begin":
            run.started_twice = True
        else:
            run.ended_at, run.end = note["at"], note["event"]
    by_job: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(runs.values(), key=lambda run: run.fence):
        by_job[run.job_id].append(run)
    return by_job


def read_jobs(database_url: str) -> tuple[dict[str, Any], dict[str, dict[int, Any]]]:
    """The rows of all jobs by id, and of their attempts by id and fence; times as seconds since the epoch."""
    with psycopg2.connect(database_url, cursor_factory=NamedTupleCursor) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT id::text, status, attempts, error, extract(epoch FROM run_at)::float AS run_at,"
            " extract(epoch FROM finished_at)::float AS finished_at FROM jobs"
        )
        jobs = {row.id: row for row in cursor}
        cursor.execute(
            "SELECT job_id::text, fence, outcome, error_type, extract(epoch FROM finished_at)::float AS finished_at"
            " FROM attempts"
        )
        attempts: dict[str, dict[int, Any]] = defaultdict(dict)
        for row in cursor:
            attempts[row.job_id][row.fence] = row
    return jobs, attempts


def audit(
    accepted: Sequence[Accepted],
    jobs: dict[str, Any],
    attempts: dict[str, dict[int, Any]],
    journal: dict[str, list[Run]],
    injections: Sequence[Injection],
    bound: float,
    moves: Sequence[Move] = (),
    rolled_back: Sequence[str] = (),
) -> Account:
    """Hold what happened against what is promised; `bound` (seconds) is that of a lost attempt's recovery."""
    account = Account(accepted=len(accepted))
    for one in accepted:
        runs = journal.get(one.job_id, [])
        row = jobs.get(one.job_id)
        if row is None or row.status not in ENDED:
            account.lost.append(one.job_id)
            continue
        if audit_workflows.is_to_be_cancelled(one, jobs) and audit_workflows.was_cancelled_by_failure(row, runs):
            account.cancelled_as_meant += 1
        elif audit_workflows.is_to_be_cancelled(one, jobs):
            account.ended_otherwise.append(one.job_id)
        elif one.is_meant_to_fail and _failed_as_meant(row, attempts[one.job_id].values()):
            account.failed_as_meant += 1
        elif row.status == "COMPLETED" and not one.is_meant_to_fail:
            account.completed += 1
        else:
            account.ended_otherwise.append(one.job_id)
        if any(not _may_be_followed(run, attempts[one.job_id], injections) for run in runs[:-1]) or _twice(runs):
            account.ran_twice.append(one.job_id)
        if _ran_early(one, row, runs):
            account.ran_early.append(one.job_id)
        if audit_workflows.ran_before_its_dependencies(one, jobs, runs):
            account.ran_before_dependencies.append(one.job_id)
        if any(_is_unchanged(run, one, attempts[one.job_id]) for run in runs):
            account.ran_unchanged.append(one.job_id)
    account.released = sum(move.is_release for move in moves)
    account.limited = sum(move.is_start and move.is_limited for move in moves)
    account.released_twice = audit_workflows.find_released_twice(moves)
    account.over_rate = audit_limits.find_rate_breaches(moves)
    account.over_concurrency = audit_limits.find_concurrency_breaches(moves)
    account.stored_uncommitted = [job_id for job_id in rolled_back if job_id in jobs]
    _audit_recoveries(account, attempts, journal, injections, bound)
    account.delayed = [request for injection in injections for request in injection.delayed]
    return account


def _failed_as_meant(row: Any, attempts: Iterable[Any]) -> bool:
    """A job that was to fail has failed, each time by its handler or by the loss of its worker."""
    reasons = {attempt.error_type for attempt in attempts if attempt.outcome != "handed-back"}
    return row.status == "FAILED" and reasons <= {"PlannedFailure", "WorkerLost"}


def _may_be_followed(run: Run, attempts: dict[int, Any], injections: Sequence[Injection]) -> bool:
    """Return True if another run may follow: this one failed, was returned uncounted, or lost its worker."""
    attempt = attempts.get(run.fence)
    is_returned = attempt is not None and attempt.outcome == "handed-back"
    return run.end == "raised" or is_returned or _injection_on(run, injections) is not None


def _injection_on(run: Run, injections: Sequence[Injection]) -> Injection | None:
    """Return the first fault that killed the run's process or its worker before the result was stored."""
    if ORPHANED in run.pids:  # the worker was taken before the handler began
        return next((one for one in reversed(injections) if one.lost and one.at <= run.started_at), None)
    for one in injections:
        if _may_have_taken(run, one, injections):
            stored_by = (run.ended_at or one.at) + STORING
            if one.at <= stored_by + _postgres_outage(injections, run.started_at, one.at):
                return one
    return None


def _may_have_taken(run: Run, injection: Injection, injections: Sequence[Injection]) -> bool:
    """Return True if this fault killed a process of the run, or stopped it while Postgres was unavailable."""
    pids = set(run.pids)
    if injection.lost & pids:
        return (injection.done_at or injection.at) >= run.started_at
    is_unavailable = _postgres_outage(injections, injection.at, injection.at + LEAVING) > 0
    return bool(injection.stopping & pids) and is_unavailable and injection.at >= run.started_at - NOTICING


def _twice(runs: Sequence[Run]) -> bool:
    return any(run.started_twice for run in runs)


def _is_unchanged(run: Run, job: Accepted, attempts: dict[int, Any]) -> bool:
    """Return True if the run began after the job's change, and not with its mark.

    One that was lost or returned before the change may begin late, in a process that was frozen.
    """
    if job.changed_at is None or run.started_at < job.changed_at or run.mark == job.mark:
        return False
    attempt = attempts.get(run.fence)
    return attempt is None or attempt.finished_at > job.changed_at


def _ran_early(job: Accepted, row: Any, runs: Sequence[Run]) -> bool:
    """Return True if a run started before its job was due, or before the interval of its retry had passed."""
    due = 0.0 if job.changed_at else row.run_at or 0.0  # the change may have come after a run
    intervals = job.body["retry"]["interval"]
    shortest = min(intervals) if isinstance(intervals, list) else intervals
    for before, run in zip([None, *runs], runs, strict=False):
        if before is not None and before.end == "raised" and before.ended_at is not None:
            due = before.ended_at + shortest
        if run.started_at < due - EARLY:
            return True
    return False


def _audit_recoveries(
    account: Account,
    attempts: dict[str, dict[int, Any]],
    journal: dict[str, list[Run]],
    injections: Sequence[Injection],
    bound: float,
) -> None:
    """Note how long after each fault its lost attempts were recovered."""
    runs = {(run.job_id, run.fence): run for runs in journal.values() for run in runs}
    for job_id, by_fence in attempts.items():
        for fence, attempt in by_fence.items():
            if attempt.outcome != "lost":
                continue
            account.attempts_lost += 1
            run = runs.get((job_id, fence))
            injection = run and _injection_on(run, [one for one in injections if one.at <= attempt.finished_at])
            if injection:
                lost_at = injection.at + LEAVING if injection.stopping else injection.at
                took = attempt.finished_at - lost_at
                account.recoveries[injection.kind].append(took)
                if took - _postgres_outage(injections, lost_at, attempt.finished_at) > bound:
                    account.recovered_late.append(job_id)
            elif run:
                account.wrongly_recovered.append(job_id)


def _postgres_outage(injections: Sequence[Injection], since: float, until: float) -> float:
    """Seconds between `since` and `until` in which Postgres was unavailable, or back for less than a lease."""
    total, counted_until = 0.0, since
    for one in injections:
        if one.kind == "Postgres killed":
            start, end = max(one.at, counted_until), min((one.healed_at or one.at) + LEASE, until)
            total += max(end - start, 0)
            counted_until = max(counted_until, end)
    return total
