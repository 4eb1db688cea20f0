"""Reports of running attempts: what one statement stores for many of them, and how it is read."""

from uuid import uuid4

from jobsvc import jobs
from jobsvc.jobs import START, Chunk, Position, StartedAttempt, queries
from jobsvc.jobs.log_lines import Lines
from jobsvc.jobs.serialize import dump_attempts
from jobsvc.states import Outcome
from tests.integration.factories import LEASE, make_due, outcome, sql, started, submit


def lines(first: int, last: int) -> Lines:
    return Lines(last, [{"time": "now", "level": "INFO", "message": str(n)} for n in range(first, last + 1)])


def append(start: StartedAttempt, first: int, last: int, superfluous: int = 0) -> bool:
    return bool(jobs.append_lines([Chunk(start, lines(first, last), superfluous)]))


def shown(start: StartedAttempt, attempt: int = -1) -> list[str]:
    return [line["message"] for line in dump_attempts(*jobs.history(start.job_id))[attempt]["logs"]]


def numbers(*spans: tuple[int, int]) -> list[str]:
    return [str(n) for first, last in spans for n in range(first, last + 1)]


def test_progress_of_many_attempts_is_stored_by_one_statement() -> None:
    starts = [started() for _ in range(3)]
    stored = jobs.report([(start, {"percent": 10.0 * n, "message": None}) for n, start in enumerate(starts)])
    assert stored == {(start.job_id, start.fence) for start in starts}
    found = [jobs.get(start.job_id) for start in starts]
    assert [job.progress for job in found] == [{"percent": 10.0 * n, "message": None} for n in range(3)]
    assert [job.version for job in found] == [2] * 3


def test_report_without_its_lease_is_ignored() -> None:
    start = started()
    stale = start._replace(fence=start.fence - 1)
    unknown = start._replace(job_id=uuid4())
    ended = started()
    jobs.finish([outcome(ended, Outcome.COMPLETED)])
    for one in (stale, unknown, ended):
        before = sql("SELECT version FROM jobs")
        assert jobs.report([(one, {"percent": 1.0, "message": None})]) == set()
        assert not append(one, 1, 1)
        assert sql("SELECT version FROM jobs") == before
    assert sql("SELECT count(*) FROM attempt_lines") == [(0,)]


def test_locked_row_is_skipped() -> None:
    from sqlalchemy import text

    from jobsvc.db.engine import transaction

    free, locked = started(), started()
    with transaction() as connection:
        connection.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": locked.job_id})
        progress = {"percent": 1.0, "message": None}
        assert jobs.report([(locked, progress), (free, progress)]) == {(free.job_id, free.fence)}
        both = [Chunk(locked, lines(1, 1)), Chunk(free, lines(1, 1))]
        assert jobs.append_lines(both) == {(free.job_id, free.fence)}


def test_overlapping_portions_are_shown_once() -> None:
    start = started()
    assert append(start, 1, 3)
    assert append(start, 1, 3)  # the answer to the first statement was lost
    assert append(start, 1, 5)
    assert shown(start) == numbers((1, 5))
    jobs.finish([outcome(start, Outcome.FAILED, logs=lines(4, 7).lines, last_line=7)])
    assert shown(start) == numbers((1, 7))
    reported = [one.line["message"] for one in jobs.lines_after(start.job_id, START, start.fence)]
    assert reported == numbers((1, 7))


def test_superfluous_portions_are_deleted() -> None:
    start = started()
    append(start, 1, 500)
    append(start, 501, 1000)
    append(start, 1001, 1500, superfluous=500)
    assert sql("SELECT last_line FROM attempt_lines ORDER BY 1") == [(1000,), (1500,)]
    assert shown(start) == ["501 earlier lines dropped", *numbers((502, 1500))]


def test_lines_after_a_gap_are_shown_with_the_missing_count() -> None:
    start = started()
    append(start, 1, 2)
    append(start, 5, 6)
    assert shown(start) == ["4 earlier lines dropped", "5", "6"]
    reported = [(one.position.line, one.line["message"]) for one in jobs.lines_after(start.job_id, START, start.fence)]
    assert reported == [(1, "1"), (2, "2"), (4, "2 earlier lines dropped"), (5, "5"), (6, "6")]


def test_lines_after_a_position_span_attempts_and_pages() -> None:
    start = started()
    append(start, 1, 2)
    for number in range(3, 65):
        append(start, number, number)
    jobs.finish([outcome(start, Outcome.SNOOZED, delay=0, logs=lines(65, 65).lines, last_line=65)])
    make_due(start.job_id)
    [again] = jobs.start([start.job_id], "worker", LEASE)
    append(again, 1, 1)
    everything = list(jobs.lines_after(start.job_id, START, again.fence))
    assert [(one.position, one.line["message"]) for one in everything] == [
        *((Position(start.fence, n), str(n)) for n in range(1, 66)),
        (Position(again.fence, 1), "1"),
    ]
    for number, one in list(enumerate(everything))[::8]:
        assert list(jobs.lines_after(start.job_id, one.position, again.fence)) == everything[number + 1 :]
    assert list(jobs.lines_after(start.job_id, START, start.fence)) == everything[:65]
    assert list(jobs.lines_after(start.job_id, START, 0)) == []
    assert (jobs.last_line(start.job_id, start.fence), jobs.last_line(start.job_id, again.fence)) == (65, 1)
    assert jobs.last_line(start.job_id, 99) is None


def test_latest_lines_of_many_jobs_are_read() -> None:
    one, other, silent = started(), started(), started()
    append(one, 1, 2)
    append(one, 3, 4)
    append(other, 1, 1)
    assert jobs.latest_lines([one.job_id, other.job_id, silent.job_id, uuid4()]) == {
        one.job_id: Position(one.fence, 4),
        other.job_id: Position(other.fence, 1),
    }


def make_attempts(count: int, size: int) -> StartedAttempt:
    start = started()
    sql(
        "INSERT INTO attempts (job_id, fence, number, started_at, outcome, traceback)"
        " SELECT :id, n, n, now(), 'snoozed', repeat('x', :size) FROM generate_series(1, :count) n",
        id=start.job_id,
        size=size,
        count=count,
    )
    sql("UPDATE jobs SET fence = :fence WHERE id = :id", fence=count + 1, id=start.job_id)
    return start


def test_newest_thousand_attempts_are_read() -> None:
    start = make_attempts(1200, 1)
    attempts = dump_attempts(*jobs.history(start.job_id))
    assert [one["number"] for one in attempts[:-1]] == list(range(202, 1201))
    assert attempts[-1]["outcome"] is None
    assert len(attempts) == 1000


def test_hidden_attempts_are_deleted_from_time_to_time() -> None:
    start = make_attempts(1199, 1)
    sql("INSERT INTO attempt_lines SELECT :id, n, 1, n, '[]' FROM generate_series(1, 1199) n", id=start.job_id)
    jobs.finish([outcome(start._replace(fence=1200), Outcome.SNOOZED, delay=0)])
    assert sql("SELECT min(fence), count(*) FROM attempts") == [(201, 1000)]
    assert sql("SELECT min(fence), count(*) FROM attempt_lines") == [(201, 999)]
    make_due(start.job_id)
    [again] = jobs.start([start.job_id], "worker", LEASE)
    jobs.finish([outcome(again, Outcome.SNOOZED, delay=0)])
    assert sql("SELECT min(fence), count(*) FROM attempts") == [(201, 1001)]


def test_older_attempts_are_not_read_beyond_the_text_limit() -> None:
    start = make_attempts(200, 100_000)
    found = jobs.history(start.job_id)[1]
    assert found[-1].fence == 200
    assert sum(len(one.traceback or "") for one in found) + 1000 * len(found) >= queries.MAX_BYTES
    assert sum(len(one.traceback or "") for one in found[1:]) < queries.MAX_BYTES


def test_single_attempt_is_read_however_large() -> None:
    start = make_attempts(3, 9 * 1024 * 1024)
    assert [one.fence for one in jobs.history(start.job_id)[1]] == [3]


def test_lines_count_as_text_of_their_attempt() -> None:
    start = make_attempts(3, 1)
    long = Lines(1, [{"time": "now", "level": "INFO", "message": "x" * 9 * 1024 * 1024}])
    current = start._replace(fence=4)
    assert jobs.append_lines([Chunk(current, long)])
    job, attempts, portions = jobs.history(start.job_id)
    assert (attempts, list(portions)) == ([], [4])
    assert job.fence == 4


def test_lines_are_deleted_with_their_job() -> None:
    job_id = submit()
    [start] = jobs.start([job_id], "worker", LEASE)
    append(start, 1, 1)
    jobs.finish([outcome(start, Outcome.COMPLETED)])
    jobs.remove(job_id)
    assert sql("SELECT count(*) FROM attempt_lines") == [(0,)]
