"""The rules for each change of a job, and for each committed state."""

from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any, ClassVar

from jobsvc.handlers import DELIVERY
from jobsvc.jobs.releases import CANCEL, RUN
from jobsvc.states import ENDED, MOVES, STARTABLE, WAITING, Status
from tests.properties.trail import Change, Row, State, seconds

BORN = (Status.PENDING, Status.SCHEDULED, Status.BLOCKED, Status.CANCELLED)
FAILED = (Status.FAILED, Status.CANCELLED)
UNCOUNTED_TO = (Status.PENDING, Status.SCHEDULED, Status.CANCELLED)
"""The statuses after a start that doesn't count; CANCELLED if a cancel had been requested."""


class Ledger:
    """The changes of one example, added up. `moves`: those that were seen in any example."""

    moves: ClassVar[set[tuple[str | None, str | None]]] = set()

    def __init__(self) -> None:
        self.counted: Counter[tuple[Any, ...]] = Counter()
        self.started: dict[tuple[str, int], float] = {}
        self.rate_starts: dict[str, list[tuple[float, Row]]] = defaultdict(list)

    def add(self, state: State, is_alone: bool) -> None:
        """Check each change, and count it. is_alone: no other transaction was open."""
        born = {change.id for change in state.changes if not change.before}
        for change in state.changes:
            if not change.before:
                check_birth(change)
            elif not change.after:
                check_delete(change)
            else:
                check_update(change, is_alone, is_new=change.id in born)
            self._count(change)

    def let_time_pass(self, passed: float) -> None:
        """Move the recorded starts into the past."""
        for key, starts in self.rate_starts.items():
            self.rate_starts[key] = [(at - passed, job) for at, job in starts]

    def _count(self, change: Change) -> None:
        job, (before, after) = change.job, change.move
        self.moves.add(change.move)
        kind = None
        if before is None:
            kind = ("accepted", None) if job["type"] != DELIVERY else None
        elif after is None or before == after:
            pass
        elif after == Status.PROCESSING:
            kind = ("started", None)
            start = (change.id, job["fence"])
            assert start not in self.started, f"two starts have one fence: {start}"
            self.started[start] = at = seconds(job["started_at"])
            if job["rate_key"]:
                self.rate_starts[job["rate_key"]].append((at, job))
        elif before == Status.PROCESSING:
            kind = ("ended", after)
        elif before in WAITING and after in ENDED:
            kind = ("dropped", after)
        elif before in ENDED:
            kind = ("revived", None)
        if kind:
            self.counted[kind[0], job["type"], job["queue"], kind[1]] += 1

    def check(self, state: State) -> None:
        """Check the committed state."""
        check_counters(self.counted, state)
        check_rates(self.rate_starts)
        for job in state.jobs.values():
            check_shape(job)
        check_concurrency(state)
        check_unique_keys(state)
        check_dependencies(state)
        assert not state.orphans, "attempts of deleted jobs are left"


def check_birth(change: Change) -> None:
    job = change.after
    assert job["status"] in BORN, job
    assert (job["attempts"], job["fence"], job["started_at"]) == (0, 0, None), job


def check_delete(change: Change) -> None:
    assert change.before["status"] in ENDED, f"an unfinished job was deleted: {change.before}"
    assert not change.blocked_dependents, f"a BLOCKED job depends on the deleted one: {change.before}"


def check_update(change: Change, is_alone: bool, is_new: bool) -> None:
    """Check a change of a job. is_new: the transaction that made it may have stored the job."""
    before, after = change.before, change.after
    assert after["version"] >= before["version"], change
    if change.is_move:
        assert after["status"] in MOVES[before["status"]], f"a forbidden move: {change.move} of {after}"
        assert is_new or after["version"] > before["version"], f"a move without a new version: {change}"
    if change.is_move and after["status"] == Status.PROCESSING:
        check_start(change, is_alone)
        return
    assert after["fence"] == before["fence"], f"the fence changed without a start: {change}"
    if after["attempts"] != before["attempts"]:
        assert before["status"] == Status.PROCESSING, change
        assert after["status"] in UNCOUNTED_TO, change
        assert after["attempts"] == before["attempts"] - 1, change
    # Of a new job it is judged by what is committed: its transaction may cancel what it depends on afterwards.
    if change.is_move and after["depends_on"] and not is_new:
        check_move_of_dependent(change)


def check_start(change: Change, is_alone: bool) -> None:
    before, after = change.before, change.after
    assert after["fence"] == before["fence"] + 1, change
    assert after["attempts"] == before["attempts"] + 1 <= after["max_attempts"], change
    at = seconds(after["started_at"])
    assert seconds(before["due_at"]) <= at, f"started before it was due: {after}"
    if is_alone and before["expires_at"]:  # else it may have waited for a lock since it was seen to be in time
        assert seconds(before["expires_at"]) > at - 1, f"started after its expiry: {after}"
    assert seconds(after["lease_expires_at"]) > at, change


def check_move_of_dependent(change: Change) -> None:
    """A job is released when all jobs that it depends on have ended, and cancelled only if one has failed."""
    statuses = set(change.dependencies.values())
    cancels = change.after["on_dependency_failure"] == CANCEL
    match change.move:
        case (Status.BLOCKED, Status.PENDING | Status.SCHEDULED):
            assert statuses <= {*ENDED}, f"released too early: {change}"
            assert not cancels or statuses <= {Status.COMPLETED}, f"released although a dependency failed: {change}"
        case (Status.BLOCKED, Status.CANCELLED) if (change.after["error"] or {}).get("type") == "DependencyFailed":
            assert cancels, f"cancelled although it is to run: {change}"
            assert statuses & {*FAILED}, f"cancelled although no dependency failed: {change}"
        case (_, Status.BLOCKED):
            assert statuses - {*ENDED}, f"blocked although all have ended: {change}"


def check_shape(job: Row) -> None:
    """The columns fit the status."""
    status = job["status"]
    assert (job["finished_at"] is not None) == (status in ENDED), job
    assert (job["lease_expires_at"] is not None) == (status == Status.PROCESSING), job
    assert (job["open_dependencies"] or 0) > 0 or status != Status.BLOCKED, job
    assert 0 <= job["attempts"] <= min(job["max_attempts"], job["fence"]), job
    if status == Status.BLOCKED:
        assert job["dispatched_at"] is None, f"a BLOCKED job was dispatched: {job}"
    if status in STARTABLE and job["dispatched_at"] == "infinity":
        pass  # that it is claimed later is shown at the end of each example
    if status == Status.COMPLETED:
        assert job["attempts"] > 0, job


def check_concurrency(state: State) -> None:
    """Each running job started while fewer than its limit were running."""
    by_key = defaultdict(list)
    for job in state.jobs.values():
        if job["status"] == Status.PROCESSING and job["concurrency_key"]:
            by_key[job["concurrency_key"]].append(job)
    for jobs in by_key.values():
        jobs.sort(key=lambda job: (seconds(job["started_at"]), job["concurrency_limit"]))
        for number, job in enumerate(jobs, start=1):
            assert number <= job["concurrency_limit"], f"more run at once than allowed: {jobs}"


def check_rates(starts: dict[str, list[tuple[float, Row]]]) -> None:
    """At each start fewer than the job's limit had started within its period."""
    for key, of_key in starts.items():
        times = sorted(at for at, _ in of_key)
        for at, job in of_key:
            within = sum(at - job["rate_per"] < other <= at for other in times)
            assert within <= job["rate_limit"], f"{within} starts of {key} within {job['rate_per']} s: {times}"


def check_unique_keys(state: State) -> None:
    keys = sorted((job["type"], job["unique_key"]) for job in state.unfinished() if job["unique_key"])
    assert all(one != other for one, other in pairwise(keys)), f"two unfinished jobs have a unique key: {keys}"


def check_dependencies(state: State) -> None:
    """A BLOCKED job waits for those that have not ended, for all of them, and counts them."""
    edges: dict[str, dict[str, bool]] = defaultdict(dict)
    for one in state.dependencies:
        assert one["dependent_id"] in state.jobs, f"a dependency of a deleted job is left: {one}"
        edges[one["dependent_id"]][one["dependency_id"]] = one["is_open"]
        before = state.jobs.get(one["dependency_id"])
        assert not before or before["has_dependents"], f"has dependents: {before}"
    for job in state.jobs.values():
        assert set(edges[job["id"]]) == set(job["depends_on"] or []), f"depends on {edges[job['id']]}: {job}"
        if job["status"] == Status.BLOCKED:
            check_blocked(job, edges[job["id"]], state)


def check_blocked(job: Row, edges: dict[str, bool], state: State) -> None:
    assert sum(edges.values()) == job["open_dependencies"], f"open dependencies: {edges}, counted otherwise: {job}"
    for job_id, is_open in edges.items():
        if job_id in state.releases:
            continue  # a relay goes on here
        status = state.jobs[job_id]["status"] if job_id in state.jobs else None
        assert is_open == (status is not None and status not in ENDED), f"{status}, but open is {is_open}: {job}"
        assert job["on_dependency_failure"] == RUN or status not in FAILED, f"its dependency {job_id} failed: {job}"


def check_counters(counted: Counter[tuple[Any, ...]], state: State) -> None:
    """The counters of /metrics are those of the changes. A cancel request of a running job is counted, too."""
    found: Counter[tuple[Any, ...]] = Counter()
    for event, type_, queue, status, number in state.counters:
        if (event, status) != ("dropped", Status.PROCESSING):
            found["ended" if event == "lost" else event, type_, queue, status] += number
    assert +found == +counted, f"counted too much: {found - counted}, too little: {counted - found}"
