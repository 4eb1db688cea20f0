"""A search by payload: the right jobs, each once, from portions that read a bounded number of rows and bytes."""

import os
from dataclasses import replace
from uuid import UUID

import pytest

from jobsvc import jobs
from jobsvc.jobs import Counted, Filter, Walk, bulk, payload_search
from jobsvc.states import Status
from tests.integration.factories import sql, submit
from tests.integration.jobs.test_counts import some_filters
from tests.integration.jobs.test_queries import fill
from tests.integration.plans import blocks_read

FIFTH = {"at": {"rest": 0}}


def listed(wanted: Filter, limit: int) -> list[UUID]:
    """The ids of all pages. Pages may be empty before the last one."""
    found: list[UUID] = []
    below: UUID | None = None
    while True:
        page = jobs.page(wanted, limit, below)
        summaries = jobs.page_of_summaries(wanted, limit, below)
        assert [job.id for job in summaries.jobs] == [job.id for job in page.jobs]
        assert summaries.next == page.next
        assert len(page.jobs) <= limit
        found += [job.id for job in page.jobs]
        if page.next is None:
            return found
        below = page.next


def set_payloads() -> None:
    """Give every job a number, and a part of it in an inner object."""
    numbered = "SELECT id, row_number() OVER (ORDER BY id) AS n FROM jobs"
    payload = "jsonb_build_object('n', n, 'at', jsonb_build_object('rest', n % 5, 'x', 'y'), 'list', jsonb '[1, {}]')"
    sql(f"UPDATE jobs SET payload = {payload} FROM ({numbered}) AS numbered WHERE jobs.id = numbered.id")


def plain_page(wanted: Filter) -> list[UUID]:
    return [job.id for job in jobs.page(wanted, 200).jobs]


@pytest.mark.parametrize(("rows", "limit"), [(3, 200), (40, 3), (10_000, 1), (10_000, 200)])
def test_payload_is_combined_with_every_filter(monkeypatch: pytest.MonkeyPatch, rows: int, limit: int) -> None:
    monkeypatch.setattr(payload_search, "MAX_ROWS", rows)
    filters = some_filters()
    set_payloads()
    fifth = {row.id for row in sql('SELECT id FROM jobs WHERE payload @> \'{"at": {"rest": 0}}\'')}
    more = [[a, b] for a in (Status.FAILED, Status.PENDING) for b in (Status.CANCELLED, Status.RETRYING)]
    for wanted in (*filters, *(replace(filters[0], statuses=both) for both in more), Filter([*Status], "A", "low")):
        expected = [job_id for job_id in plain_page(wanted) if job_id in fifth]
        assert expected or not plain_page(wanted), wanted
        assert listed(replace(wanted, payload=FIFTH), limit) == expected, wanted
        assert [i for one in payload_search.portions(replace(wanted, payload=FIFTH)) for i in one.ids] == expected[::-1]


def test_containment_is_that_of_postgres() -> None:
    job_id = submit(payload={"a": 1, "b": [1, 2, {"c": None}], "d": "é\U0001f600"})
    submit(payload={"a": "1"})
    for payload in ({"a": 1}, {"a": 1.0}, {"b": [2]}, {"b": [{"c": None}, 1, 1]}, {"d": "é\U0001f600"}):
        assert listed(Filter(payload=payload), 5) == [job_id], payload
    for payload in ({"a": 2}, {"b": 1}, {"b": [[1]]}, {"c": None}, {"d": "é"}, {"a": None}):
        assert listed(Filter(payload=payload), 5) == [], payload
    assert len(listed(Filter(payload={}), 5)) == 2


def test_portion_ends_with_the_payload_that_fills_it(monkeypatch: pytest.MonkeyPatch) -> None:
    submit(queue="low", payload={"text": os.urandom(50_000).hex()})  # doesn't match, so its payload isn't read
    ids = [submit(payload={"text": os.urandom(50_000).hex()}) for _ in range(6)]
    monkeypatch.setattr(payload_search, "MAX_BYTES", 150_000)
    pages = list(payload_search.portions(Filter(queue="default", payload={})))
    assert [list(page.ids) for page in pages] == [ids[:2], ids[2:4], ids[4:], []]
    assert listed(Filter(queue="default", payload={}), 10) == ids[::-1]
    assert listed(Filter(queue="default", payload={"no": 1}), 10) == []


def test_page_without_a_match_ends_at_the_bound_and_reads_few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_search, "MAX_ROWS", 500)
    fill()
    nothing = {"no": "such thing"}
    for wanted in (
        Filter(payload=nothing),
        Filter(type="B", payload=nothing),
        Filter([Status.PENDING], payload=nothing),
        Filter([Status.FAILED, Status.CANCELLED], payload=nothing),
        Filter([*Status], queue="low", payload=nothing),
    ):
        assert blocks_read(lambda wanted=wanted: jobs.page(wanted, 50)) < 2000, wanted
    page = jobs.page(Filter(payload=nothing), 50)
    assert page.jobs == []
    [bound] = sql("SELECT id FROM jobs WHERE type <> 'WEBHOOK' ORDER BY id DESC OFFSET 499 LIMIT 1")
    assert page.next == bound.id


def test_counts_are_of_the_newest_portion(monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(8):
        submit(payload={"n": n % 2}, delay=60 if n < 4 else None)
    wanted = Filter([Status.FAILED], payload={"n": 1})
    assert jobs.count_by_status(wanted)[Status.SCHEDULED] == Counted(2, True)
    monkeypatch.setattr(payload_search, "MAX_ROWS", 6)
    counts = jobs.count_by_status(wanted)
    assert counts[Status.SCHEDULED] == Counted(1, False)
    assert counts[Status.PENDING] == Counted(2, False)
    assert counts[Status.FAILED] == Counted(0, False)


def test_newer_jobs_are_counted() -> None:
    ids = [submit(payload={"n": n % 3}) for n in range(9)]
    assert jobs.count_newer(Filter(payload={"n": 0}), ids[0]) == 2
    assert jobs.count_newer(Filter(payload={"n": 0}), ids[0], at_most=1) == 1
    assert jobs.count_newer(Filter(payload={"n": 0}), ids[-1]) == 0


def test_walk_is_bounded_and_another_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_search, "MAX_ROWS", 3)
    monkeypatch.setattr(bulk, "MAX_ROWS", 3)
    monkeypatch.setattr(bulk, "MAX_WALK", 6)
    monkeypatch.setattr(bulk, "BATCH", 2)
    ids = [submit(payload={"n": n % 2}, tags=["x"]) for n in range(14)]
    wanted = Filter(tags=["x"], payload={"n": 0})
    walks, after = [], None
    while True:
        walk = Walk(after)
        walks.append([sorted(batch) for batch in jobs.cancel_all(wanted, walk)])
        if walk.next is None:
            break
        after = walk.next
    assert walks == [[[ids[0], ids[2]], [ids[4]]], [[ids[6], ids[8]], [ids[10]]], [[ids[12]]]]
    assert [jobs.get(job_id).status for job_id in ids] == [Status.CANCELLED, Status.PENDING] * 7


def test_action_without_a_walk_goes_on_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_search, "MAX_ROWS", 3)
    monkeypatch.setattr(bulk, "MAX_WALK", 3)
    ids = [submit(payload={"n": n % 2}, type="T") for n in range(10)]
    odd = Filter(type="T", payload={"n": 1})
    assert jobs.count_cancellable(odd, 100) == 5
    assert jobs.count_cancellable(odd, 4) == 4
    assert jobs.count_retryable(replace(odd, statuses=[Status.PENDING]), 100) == 0
    assert sum(len(batch) for batch in jobs.cancel_all(odd)) == 5
    assert jobs.count_removable(odd, 100) == 5
    assert [one.job_id for batch in jobs.retry_all(odd) for one in batch] == ids[1::2]
    assert list(jobs.remove_all(replace(odd, statuses=[Status.PENDING]))) == []
    sql("UPDATE jobs SET status = 'FAILED'")
    assert [job_id for batch in jobs.remove_all(odd) for job_id in batch] == ids[1::2]
    assert [row.n for row in sql("SELECT DISTINCT payload -> 'n' AS n FROM jobs")] == [0]


def test_action_skips_jobs_made_since(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it ends, however fast jobs are posted."""
    monkeypatch.setattr(payload_search, "MAX_ROWS", 1)
    submit(payload={"n": 1})
    cancelled = 0
    for batch in jobs.cancel_all(Filter(queue="default", payload={"n": 1})):
        cancelled += len(batch)
        submit(payload={"n": 1})
    assert cancelled == 1
