"""The list: the right jobs in the right order, and the same few blocks read wherever one is in it."""

import itertools
import json
import os
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ClauseElement, Executable

from jobsvc import jobs
from jobsvc.db.engine import statement, transaction
from jobsvc.db.models import Job
from jobsvc.jobs import Filter
from jobsvc.jobs.queries import MAX_BYTES, keys
from jobsvc.jobs.serialize import dump_job
from jobsvc.states import Status
from tests.integration.factories import sql, submit

YEAR_2026 = datetime(2026, 1, 1, tzinfo=UTC)


def walk(which: Filter, limit: int) -> list[Job]:
    """All jobs of the list, page by page."""
    found: list[Job] = []
    below: UUID | None = None
    while True:
        page = jobs.page(which, limit, below)
        assert len(page.jobs) <= limit
        found += page.jobs
        if page.next is None:
            return found
        assert page.jobs
        below = page.next


def some_of_each() -> list[Job]:
    """Jobs of every kind, the newest first."""
    kinds = itertools.product(Status, ("A", "B"), ("high", "low"), ([], ["x"], ["x", "y"]))
    made = [(submit(type=type_, queue=queue, tags=tags), status) for status, type_, queue, tags in kinds]
    for number, (job_id, status) in enumerate(made):
        sql(
            "UPDATE jobs SET status = :s, dispatched_at = CASE :n % 3 WHEN 0 THEN NULL WHEN 1 THEN due_at"
            " ELSE due_at - interval '1 s' END WHERE id = :id",
            s=status,
            n=number,
            id=job_id,
        )
    return [jobs.get(job_id) for job_id, _ in reversed(made)]


def test_every_filter_selects_its_jobs() -> None:
    made = some_of_each()
    middle, later = made[len(made) // 2].created_at, made[len(made) // 3].created_at
    asked: list[tuple[Filter, Callable[[Job], bool]]] = [
        (Filter(), lambda job: True),
        *((Filter([s]), lambda job, s=s: job.status == s) for s in Status),
        *((Filter([a, b]), lambda job, w=(a, b): job.status in w) for a, b in itertools.combinations(Status, 2)),
        (Filter(list(Status)), lambda job: True),
        (Filter(type="A"), lambda job: job.type == "A"),
        (Filter(type="C"), lambda job: False),
        (Filter(queue="low"), lambda job: job.queue == "low"),
        (Filter(tags=["x"]), lambda job: bool(job.tags)),
        (Filter(tags=["y", "x"]), lambda job: job.tags == ["x", "y"]),
        (Filter(tags=["z"]), lambda job: False),
        (Filter(created_after=middle), lambda job: job.created_at >= middle),
        (Filter(created_before=middle), lambda job: job.created_at < middle),
        (Filter(created_after=middle, created_before=later), lambda job: middle <= job.created_at < later),
        (Filter(created_after=later, created_before=middle), lambda job: False),
        (
            Filter([Status.FAILED, Status.PENDING], "B", "high", ["x"], middle - timedelta(days=1)),
            lambda job: (
                (job.type, job.queue) == ("B", "high") and bool(job.tags) and job.status in ("FAILED", "PENDING")
            ),
        ),
    ]
    for which, is_meant in asked:
        expected = [job.id for job in made if is_meant(job)]
        assert [job.id for job in walk(which, 7)] == expected, which
        assert [job.id for job in walk(which, 200)] == expected, which


def test_deliveries_are_listed_only_by_type() -> None:
    plain, delivery = submit(), submit(type="WEBHOOK")
    assert [job.id for job in walk(Filter(), 10)] == [plain]
    assert [job.id for job in walk(Filter(type="WEBHOOK"), 10)] == [delivery]


def test_job_without_tags_is_not_in_the_tag_index() -> None:
    job = jobs.get(submit())
    assert job.tags is None
    assert dump_job(job)["tags"] == []


def test_full_last_page_has_no_next() -> None:
    ids = [submit() for _ in range(4)]
    assert jobs.page(Filter(), 4).next is None
    first = jobs.page(Filter(), 3)
    assert first.next == first.jobs[-1].id == ids[1]
    assert jobs.page(Filter(), 3, ids[0]).jobs == []


def test_inserted_and_deleted_jobs_shift_no_page() -> None:
    ids = [submit() for _ in range(9)]
    first = jobs.page(Filter(), 3)
    submit()
    sql("DELETE FROM jobs WHERE id = :id", id=first.next)
    sql("UPDATE jobs SET status = 'FAILED' WHERE id = :id", id=ids[0])
    second = jobs.page(Filter(), 3, first.next)
    third = jobs.page(Filter(), 3, second.next)
    assert [job.id for page in (first, second, third) for job in page.jobs] == ids[::-1]
    assert third.next is None


def large(kind: str) -> dict[str, Any]:
    """A payload whose JSON is an eighth of a page, however Postgres formats it."""
    size = MAX_BYTES // 8
    texts = {
        "random": os.urandom(size // 2).hex(),
        "repeated": "a" * size,
        "escaped": "\u00e9" * (size // 6),  # two bytes in Postgres, six in JSON
        "control": "\x01" * (size // 6),
    }
    return {"text": texts[kind]}


@pytest.mark.parametrize("kind", ["random", "repeated", "escaped", "control"])
def test_page_ends_with_the_job_that_fills_it(kind: str) -> None:
    ids = [submit(payload=large(kind)) for _ in range(20)]
    page = jobs.page(Filter(), 200)
    assert [job.id for job in page.jobs] == ids[: -len(page.jobs) - 1 : -1]
    sizes = [len(json.dumps(dump_job(job), separators=(",", ":"))) for job in page.jobs]
    assert sum(sizes[:-1]) < MAX_BYTES <= sum(sizes)
    assert [len(text) for text in page.texts] == sizes
    assert [job.id for job in walk(Filter(), 200)] == ids[::-1]


def test_results_and_messages_count_for_the_page_size() -> None:
    ids = [submit() for _ in range(20)]
    sql("UPDATE jobs SET result = to_jsonb(repeat('a', :size))", size=MAX_BYTES // 8)
    assert len(jobs.page(Filter(), 200).jobs) == 8
    sql("UPDATE jobs SET result = NULL, progress = jsonb_build_object('percent', 1, 'message', repeat('a', 900000))")
    assert len(jobs.page(Filter(), 200).jobs) == 10
    assert [job.id for job in walk(Filter(), 200)] == ids[::-1]


def test_page_filled_by_the_last_job_is_the_last() -> None:
    ids = [submit(payload=large("repeated")) for _ in range(8)]
    page = jobs.page(Filter(), 200)
    assert ([job.id for job in page.jobs], page.next) == (ids[::-1], None)
    assert jobs.page(Filter(), 7).next == ids[1]


def test_job_larger_than_a_page_is_a_page_of_its_own() -> None:
    ids = [submit(payload={"random": os.urandom(MAX_BYTES // 2 + 1).hex()}) for _ in range(2)]
    assert [job.id for job in walk(Filter(), 200)] == ids[::-1]
    assert len(jobs.page(Filter(), 200).jobs) == 1


def test_page_size_counts_shown_fields_only() -> None:
    ids = [submit(payload=large("repeated")) for _ in range(20)]
    page = jobs.page(Filter(), 200, dump=lambda job: {"id": str(job.id)})
    assert page.texts == [f'{{"id":"{job_id}"}}' for job_id in ids[::-1]]


def test_at_most_one_portion_beyond_the_page_is_in_memory() -> None:
    for _ in range(200):
        submit(payload=large("repeated"))
    tracemalloc.start()
    try:
        jobs.page(Filter(), 200)
        assert tracemalloc.get_traced_memory()[1] < 8 * MAX_BYTES
    finally:
        tracemalloc.stop()


def test_wrong_clock_hides_no_job() -> None:
    """Ids are made by the clock of an API process, createdAt by that of Postgres."""
    job = jobs.get(submit())
    for skew in (-59, 59):
        at = job.created_at + timedelta(seconds=skew)
        sql("UPDATE jobs SET created_at = :at", at=at)
        assert jobs.page(Filter(created_after=at, created_before=at + timedelta(seconds=1)), 9).jobs


class Explain(Executable, ClauseElement):
    inherit_cache = False

    def __init__(self, statement: Any) -> None:
        self.statement = statement


@compiles(Explain)
def _explain(element: Explain, compiler: Any, **kw: Any) -> str:
    return "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + compiler.process(element.statement, **kw)


def blocks(which: Filter, below: UUID | None = None) -> int:
    """Return the number of blocks (8 KiB) that Postgres reads for a page of 50."""
    with transaction() as connection:
        [top] = connection.scalar(Explain(keys(which, below).limit(51)))  # type: ignore[arg-type]
    return int(top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"])


ROWS = 100_000
FILL = text(
    """
INSERT INTO jobs (id, type, queue, payload, status, created_at, timeout, retry_intervals, max_attempts, due_at,
                  dispatched_at, tags)
SELECT (lpad(to_hex((extract(epoch FROM t) * 1000)::bigint), 12, '0') || '7000' || '8000' || lpad(to_hex(n), 12, '0'))
           ::uuid,
       CASE WHEN n = 30000 THEN 'AB' WHEN n % 2 = 0 THEN 'A' ELSE 'B' END,
       CASE WHEN n = 30001 THEN 'rare' ELSE 'default' END,
       '{"durationMs": 10}',
       CASE n % 20000 WHEN 1 THEN 'FAILED' WHEN 2 THEN 'CANCELLED' WHEN 3 THEN 'PENDING' WHEN 4 THEN 'SCHEDULED'
                      WHEN 5 THEN 'RETRYING' WHEN 6 THEN 'PROCESSING' ELSE :most END,
       t, 180, '{1,5,25}', 4, t, CASE WHEN n % 20000 <> 4 THEN t END,
       CASE WHEN n = 30002 THEN '{rare,common}'::text[] WHEN n % 100 = 0 THEN '{common}' END
FROM (SELECT n, timestamptz '2026-01-01Z' + n * interval '1 s' AS t FROM generate_series(1, :rows) AS n) AS g
"""
)


def fill(most: Status = Status.COMPLETED) -> int:
    """A table of many jobs, of which few have another status than `most`; returns its blocks."""
    with transaction() as connection:
        connection.execute(FILL, {"rows": ROWS, "most": most})
    with statement() as connection:
        connection.execute(text("VACUUM ANALYZE jobs"))
    return int(sql("SELECT pg_relation_size('jobs') / 8192")[0][0])


def test_page_reads_few_blocks() -> None:
    all_blocks = fill()
    assert all_blocks > 2500
    deep = jobs.page(Filter(created_before=YEAR_2026 + timedelta(seconds=500)), 1).next
    assert deep
    first, last = blocks(Filter()), blocks(Filter(), deep)
    assert max(first, last) < 20
    assert abs(first - last) <= 5

    hour = Filter(created_after=YEAR_2026 + timedelta(hours=3), created_before=YEAR_2026 + timedelta(hours=4))
    few = {
        **{status: Filter([status]) for status in set(Status) - {Status.COMPLETED}},
        "waiting": Filter([Status.PENDING, Status.SCHEDULED, Status.RETRYING]),
        "not completed": Filter(sorted(set(Status) - {Status.COMPLETED})),
        "common": Filter([Status.COMPLETED]),
        "type and status": Filter([Status.FAILED], type="A"),
        "tag": Filter(tags=["rare"]),
        "no tag": Filter(tags=["nobody's"]),
        "created": hour,
    }
    cost = {name: blocks(which) for name, which in few.items()}
    assert max(cost.values()) < 60, cost

    some = {
        "type": Filter(type="AB"),
        "no type": Filter(type="NOBODYS"),
        "deliveries": Filter(type="WEBHOOK"),
        "queue": Filter(queue="rare"),
        "no queue": Filter(queue="nobody's"),
        "common tag": Filter(tags=["common"]),
    }
    cost = {name: blocks(which) for name, which in some.items()}
    assert max(cost.values()) < all_blocks / 8, cost
