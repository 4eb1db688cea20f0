"""Lists without payloads, and the search for ids."""

import os
from dataclasses import fields
from uuid import UUID, uuid4

import pytest

from jobsvc import jobs
from jobsvc.errors import JobNotFound
from jobsvc.jobs import Filter, JobSummary, queries
from jobsvc.states import Outcome, Status
from tests.integration.factories import outcome, sql, started, submit
from tests.integration.jobs.test_queries import some_of_each, walk
from tests.integration.plans import blocks_read


def walk_summaries(wanted: Filter, limit: int) -> list[JobSummary]:
    found: list[JobSummary] = []
    cursor: UUID | None = None
    while True:
        page = jobs.page_of_summaries(wanted, limit, cursor)
        assert len(page.jobs) <= limit
        found += page.jobs
        if page.next is None:
            return found
        cursor = page.next


def test_summaries_are_those_of_the_listed_jobs() -> None:
    some_of_each()
    jobs.finish([outcome(started(unique_key="u", concurrency_key="c", concurrency_limit=1), Outcome.FAILED)])
    for wanted in (Filter(), Filter([Status.FAILED, Status.PENDING], type="A"), Filter(tags=["x"]), Filter(type="C")):
        listed, found = walk(wanted, 50), walk_summaries(wanted, 7)
        assert [one.id for one in found] == [one.id for one in listed]
        for one, job in zip(found, listed, strict=True):
            assert vars(one) == {field.name: getattr(job, field.name) for field in fields(JobSummary)}


def test_full_last_page_has_no_next() -> None:
    ids = [submit() for _ in range(3)]
    assert jobs.page_of_summaries(Filter(), 3).next is None
    assert jobs.page_of_summaries(Filter(), 2).next == ids[1]


def test_summaries_read_no_large_payload() -> None:
    for _ in range(20):
        submit(payload={"text": os.urandom(100_000).hex()})
    assert blocks_read(lambda: jobs.page_of_summaries(Filter(), 50)) < 20
    assert blocks_read(lambda: sql("SELECT length(payload::text) FROM jobs")) > 100


def test_job_is_found_by_its_id_and_by_the_end_of_it() -> None:
    ids = [submit() for _ in range(3)]
    for job_id in ids:
        text = str(job_id)
        for given in (text, text.upper(), f" {text} ", job_id.hex, text[-4:], text[-8:].upper(), text[-13:], text[1:]):
            assert job_id in jobs.find(given), given
    assert jobs.find(str(ids[0])) == [ids[0]]


def test_what_is_no_part_of_an_id_finds_nothing() -> None:
    job_id = submit(type="ABCD")
    end = str(job_id)
    for given in (
        "",
        " ",
        end[-3:],
        "TEST_JOB",
        "x" + end[-4:],
        end + "0",
        str(uuid4()),
        "%",
        "____",
        "'",
        "\0",
        "\ud800",
    ):
        assert jobs.find(given) == [], given


def test_several_jobs_with_the_same_end_are_found_newest_first() -> None:
    for number in range(25):
        sql("UPDATE jobs SET id = :new WHERE id = :id", id=submit(), new=UUID(int=(number + 1) << 64 | 0xABCD))
    found = jobs.find("00abcd")
    assert [one.int >> 64 for one in found] == list(range(25, 5, -1))
    with pytest.raises(JobNotFound, match="several jobs"):
        jobs.find_by_id_end("0000abcd")


def test_only_the_newest_jobs_are_searched_by_the_end_of_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = submit(), submit()
    monkeypatch.setattr(queries, "MOST_SEARCHED", 1)
    assert jobs.find(str(new)[-8:]) == [new]
    assert jobs.find(str(old)[-8:]) == []
    assert jobs.find(str(old)) == [old]
