"""Offers of the relay to stock workers: few at first, more as they are started, and never one job twice."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from jobsvc import jobs
from jobsvc.dispatch import rq_workers
from jobsvc.dispatch.offers import Offers, is_to_offer, turn_key
from jobsvc.dispatch.rq_redis import connection
from jobsvc.dispatch.rq_workers import WorkerState
from tests.integration.factories import LEASE, submit

OLD = frozenset({"TEST_JOB"})


def worker(
    types: frozenset[str] | None, queue: str = "default", expires_in: int = 400, silent_seconds: float = 1
) -> WorkerState:
    beat = datetime.now(UTC) - timedelta(seconds=silent_seconds)
    return WorkerState("w", None, None, "idle", [queue], [], beat, types, expires_in)


@pytest.fixture
def offers(monkeypatch: pytest.MonkeyPatch) -> Offers:
    monkeypatch.setattr(rq_workers, "known", lambda: [worker(OLD), worker(None)])
    return Offers()


def refuse(*job_ids: UUID) -> None:
    assert jobs.start(job_ids, "w", LEASE, OLD) == []


def next_round(offers: Offers) -> list[UUID]:
    connection().delete(turn_key())
    return [one.job_id for one in offers.claim()]


@pytest.mark.parametrize(
    ("workers", "is_offered"),
    [
        ([], True),
        ([partial(worker, None)], True),
        ([partial(worker, OLD), partial(worker, None)], True),
        ([partial(worker, OLD | {"NEW"}), partial(worker, None)], True),
        ([partial(worker, OLD)], True),
        ([partial(worker, OLD), partial(worker, OLD | {"NEW"})], False),
        ([partial(worker, OLD | {"NEW"}), partial(worker, None, "low")], False),
        ([partial(worker, None, expires_in=80)], False),  # of version 0.1.0, or a busy one
        ([partial(worker, OLD), partial(worker, None, expires_in=80)], False),
        ([partial(worker, None, expires_in=80), partial(worker, None)], True),
        ([partial(worker, None, expires_in=80, silent_seconds=395)], True),  # a stock worker just before its heartbeat
    ],
)
def test_offers_depend_on_the_workers(workers: list[Any], is_offered: bool) -> None:
    # Made here, since the age of a heartbeat counts.
    assert is_to_offer(("default", "NEW"), [make() for make in workers]) == is_offered


def test_offers_double_each_time_they_start(offers: Offers) -> None:
    refuse(*(submit(type="NEW") for _ in range(20)))
    sizes = []
    for _ in range(4):
        offered = next_round(offers)
        jobs.start(offered, "stock", LEASE)
        sizes.append(len(offered))
    assert sizes == [1, 2, 4, 8]


def test_refused_offers_are_made_one_at_a_time(offers: Offers) -> None:
    refuse(*(submit(type="NEW") for _ in range(5)))
    for _ in range(4):
        offered = next_round(offers)
        assert len(offered) == 1
        refuse(*offered)


def test_no_further_offer_while_the_last_is_in_rq(offers: Offers) -> None:
    refuse(*(submit(type="NEW") for _ in range(5)))
    assert len(next_round(offers)) == 1
    assert next_round(offers) == []


def test_types_take_turns(offers: Offers) -> None:
    ids = {type_: submit(type=type_) for type_ in "ABCDE"}
    refuse(*ids.values())
    seen = []
    for _ in range(3):
        offered = next_round(offers)
        refuse(*offered)
        seen += offered
    assert seen[:5] == list(ids.values())


def test_only_one_relay_at_a_time_makes_offers(offers: Offers) -> None:
    refuse(submit(type="A"), submit(type="A"))
    assert len(next_round(offers)) == 1
    assert Offers().claim() == []
    assert connection().ttl(turn_key()) >= 0
