"""Dependents: the filter that finds them, and a job's neighbours, with few blocks read however many there are."""

from dataclasses import replace
from uuid import UUID

import pytest

from jobsvc import jobs
from jobsvc.jobs import Counted, Filter, Neighbour, graph
from jobsvc.states import Status
from tests.integration.factories import sql, submit
from tests.integration.jobs.test_counts import some_filters
from tests.integration.jobs.test_payload_search import listed, set_payloads
from tests.integration.jobs.test_queries import fill
from tests.integration.plans import blocks_read

DEPEND = """
WITH edges AS (
    INSERT INTO dependencies (dependency_id, dependent_id, is_open)
    SELECT :first, id, status = 'BLOCKED' FROM jobs WHERE id <> :first AND {}
    RETURNING dependent_id)
UPDATE jobs SET depends_on = array[CAST(:first AS uuid)] WHERE id IN (SELECT dependent_id FROM edges)
"""


def add_dependents(job_id: UUID, which: str) -> int:
    """Let the jobs that match this SQL depend on the job; return their number."""
    sql("UPDATE jobs SET has_dependents = true WHERE id = :id", id=job_id)
    return int(sql(DEPEND.format(which), first=job_id))


def test_dependents_are_found_with_every_other_filter() -> None:
    filters = some_filters()
    set_payloads()
    first, other = submit(type="A"), submit()
    add_dependents(first, "CAST(payload ->> 'n' AS int) % 3 = 1")
    add_dependents(other, "type = 'B'")
    depends = {row.dependent_id for row in sql("SELECT * FROM dependencies WHERE dependency_id = :id", id=first)}
    assert len(depends) > 20
    for wanted in (*filters, Filter([Status.FAILED, Status.BLOCKED]), Filter(payload={"at": {"rest": 1}})):
        whole = listed(wanted, 200)
        meant = replace(wanted, depends_on=first)
        expected = [job_id for job_id in whole if job_id in depends]
        assert listed(meant, 3) == expected, wanted
        assert listed(replace(meant, payload=wanted.payload or {}), 7) == expected, wanted
        assert sum(one.number for one in jobs.count_by_status(replace(meant, statuses=())).values()) >= len(expected)
    assert listed(Filter(depends_on=submit()), 5) == []


def test_dependents_are_cancelled_together() -> None:
    first = submit()
    dependents, others = [submit() for _ in range(3)], [submit() for _ in range(3)]
    assert add_dependents(first, f"id <= '{dependents[-1]}'") == 3
    assert jobs.count_cancellable(Filter(depends_on=first), 10) == 3
    assert [set(batch) for batch in jobs.cancel_all(Filter(depends_on=first))] == [set(dependents)]
    assert {jobs.get(job_id).status for job_id in (first, *others)} == {Status.PENDING}


def test_dependents_are_read_in_the_order_of_their_index() -> None:
    """Also if they are many, or the oldest of many jobs."""
    fill()
    all_of_them, few = submit(), submit()
    assert add_dependents(all_of_them, "type <> 'B'") > 40_000
    oldest = sql("SELECT id FROM jobs ORDER BY id OFFSET 20 LIMIT 1")[0].id
    assert add_dependents(few, f"id < '{oldest}'") == 20
    sql("ANALYZE jobs, dependencies")
    for first in (all_of_them, few):
        for wanted in (Filter(depends_on=first), Filter(depends_on=first, payload={"no": 1})):
            if wanted.payload is None or first == few:
                assert blocks_read(lambda wanted=wanted: jobs.page(wanted, 20)) < 300
        assert blocks_read(lambda first=first: jobs.read_graph(jobs.get(first))) < 300
    counts = jobs.count_by_status(Filter(depends_on=few))
    assert sum(one.number for one in counts.values()) == 20
    assert all(one.is_complete for one in counts.values())


def test_graph_has_the_first_neighbours_and_the_number_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MAX_NEIGHBOURS", 2)
    up = [submit(type="UP") for _ in range(3)]
    job_id = submit()
    down = [submit(type="DOWN") for _ in range(4)]
    add_dependents(job_id, "type = 'DOWN'")
    sql("UPDATE jobs SET depends_on = :up WHERE id = :id", up=up, id=job_id)
    sql("DELETE FROM jobs WHERE id = :id", id=up[1])
    found = jobs.read_graph(jobs.get(job_id))
    assert found
    assert found.dependencies == [Neighbour(up[0], "UP", "PENDING"), Neighbour(up[1], None, None)]
    assert found.more_dependencies == 1
    assert [one.id for one in found.dependents] == down[:2]
    assert found.more_dependents == Counted(2, True)
    monkeypatch.setattr(graph, "MAX_COUNTED", 3)
    assert jobs.read_graph(jobs.get(job_id)).more_dependents == Counted(2, False)  # type: ignore[union-attr]


def test_job_whose_dependents_were_deleted_has_no_graph() -> None:
    job_id = submit()
    sql("UPDATE jobs SET has_dependents = true WHERE id = :id", id=job_id)
    assert jobs.read_graph(jobs.get(job_id)) is None


def test_plain_job_has_no_graph_and_causes_no_query(monkeypatch: pytest.MonkeyPatch) -> None:
    job = jobs.get(submit())
    monkeypatch.setattr(graph, "transaction", None)
    assert jobs.read_graph(job) is None
