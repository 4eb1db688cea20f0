"""Idempotency keys on a real Postgres."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from jobsvc import jobs
from jobsvc.db.engine import transaction
from jobsvc.errors import KeyInProgress, KeyReused
from jobsvc.jobs import RequestKey, Submitted, idempotency
from jobsvc.jobs.idempotency import Answer
from tests.integration.factories import new, sql

KEY = RequestKey("a caller", "key", "fingerprint")


def report(submitted: Sequence[Submitted]) -> dict[str, Any]:
    return {"ids": [str(one.job_id) for one in submitted]}


def submit(key: RequestKey = KEY, count: int = 1) -> Answer:
    return jobs.submit_once(key, [new() for _ in range(count)], report)


def made() -> int:
    [(count,)] = sql("SELECT count(*) FROM jobs")
    return int(count)


def test_repeated_request_gets_the_stored_reply() -> None:
    first, second = submit(count=3), submit(count=3)
    assert (first.replayed, second.replayed) == (False, True)
    assert second.reply == first.reply == report(first.submitted)
    assert (second.submitted, made()) == ([], 3)


def test_different_request_with_the_key_is_refused() -> None:
    submit()
    with pytest.raises(KeyReused):
        submit(replace(KEY, fingerprint="other"))
    assert made() == 1


def test_keys_are_separate_for_each_caller() -> None:
    ids = {submit(key).reply["ids"][0] for key in (KEY, replace(KEY, owner="else"), replace(KEY, key="else"))}
    assert len(ids) == made() == 3


def test_second_request_is_refused_while_the_first_is_running() -> None:
    def under_way(submitted: Sequence[Submitted]) -> dict[str, Any]:
        with ThreadPoolExecutor(1) as pool, pytest.raises(KeyInProgress):
            pool.submit(submit).result()
        return report(submitted)

    first = jobs.submit_once(KEY, [new()], under_way)
    assert submit().reply == first.reply
    assert made() == 1


def test_failed_request_stores_no_reply() -> None:
    def fail(submitted: Sequence[Submitted]) -> dict[str, Any]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        jobs.submit_once(KEY, [new()], fail)
    assert made() == 0
    assert not submit().replayed


def test_fifty_concurrent_requests_make_one_job() -> None:
    def one(_: int) -> str | None:
        try:
            return str(submit().reply["ids"][0])
        except KeyInProgress:
            return None

    with ThreadPoolExecutor(10) as pool:
        reported = list(pool.map(one, range(50)))
    assert len(set(reported) - {None}) == made() == 1


def test_key_expires_after_a_day() -> None:
    submit()
    sql("UPDATE idempotency_keys SET created_at = now() - interval '23 h 59 min'")
    assert submit().replayed
    sql("UPDATE idempotency_keys SET created_at = now() - interval '24 h'")
    other = submit(replace(KEY, fingerprint="other"))
    assert (other.replayed, made()) == (False, 2)
    assert submit(replace(KEY, fingerprint="other")).reply == other.reply


def test_old_keys_are_pruned_in_bounded_batches() -> None:
    for number in range(5):
        submit(replace(KEY, key=str(number)))
    sql("UPDATE idempotency_keys SET created_at = now() - interval '25 h' WHERE key <> '4'")
    assert [jobs.delete_old_keys(3), jobs.delete_old_keys(3), jobs.delete_old_keys(3)] == [3, 1, 0]
    assert sql("SELECT key FROM idempotency_keys") == [("4",)]


def test_key_in_use_is_not_pruned() -> None:
    submit()
    sql("UPDATE idempotency_keys SET created_at = now() - interval '25 h'")
    with ThreadPoolExecutor(1) as pool, transaction() as connection:
        idempotency._store_reply(connection, KEY, {})
        assert pool.submit(jobs.delete_old_keys, 10).result(timeout=5) == 0  # without waiting for it
    assert jobs.delete_old_keys(10) == 0
