"""Requests that come twice: an Idempotency-Key and a uniqueKey each make one job."""

import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from jobsvc.db.engine import transaction
from tests.acceptance.test_bad_input import count
from tests.support.http import bearer, refused
from tests.support.service import Service, eventually


def post(service: Service, key: str, body: Any = None, path: str = "/jobs", **headers: str) -> httpx.Response:
    content = body if isinstance(body, str) else None
    return service.client.post(
        path,
        json=None if content is not None else body,
        content=content,
        headers={"Idempotency-Key": key, "Content-Type": "application/json", **headers},
    )


def fresh() -> str:
    return str(uuid.uuid4())


def test_repeated_request_gets_the_same_response(api: Service) -> None:
    key, before = fresh(), count()
    first, second = (post(api, key, {"payload": {"result": 1}}) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json() == first.json()
    assert second.headers["Location"] == first.headers["Location"] == f"/jobs/{first.json()['jobId']}"
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert count() == before + 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"delay": 1, "payload": {"result": {"a": 1, "b": 2}}}', '{"payload":{"result":{"b":2,"a":1}},"delay":1}'),
        ('{"payload": {"result": [1, 100, 0.5]}}', '{"payload": {"result": [1.0, 1e2, 5e-1]}}'),
        ('{"payload": {"result": "\\u00fc"}}', '{"payload": {"result": "ü"}}'),
        ("{}", ""),
    ],
)
def test_equal_json_is_the_same_body(api: Service, one: str, other: str) -> None:
    key = fresh()
    first, second = post(api, key, one), post(api, key, other)
    assert (second.status_code, second.json()) == (202, first.json())
    assert second.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("{}", '{"delay": 0}'),
        ('{"payload": {"result": 1}}', '{"payload": {"result": "1"}}'),
        ('{"payload": {"result": 1}}', '{"payload": {"result": true}}'),
        ('{"payload": {"result": [1, 2]}}', '{"payload": {"result": [2, 1]}}'),
        ('{"payload": {"result": null}}', '{"payload": {}}'),
    ],
)
def test_different_body_is_refused(api: Service, one: str, other: str) -> None:
    key = fresh()
    first, before = post(api, key, one), count()
    refused(post(api, key, other), 422)
    assert count() == before
    assert post(api, key, one).json() == first.json()


def test_key_of_another_endpoint_is_refused(api: Service) -> None:
    key = fresh()
    post(api, key, {})
    refused(post(api, key, {"jobs": [{}]}, "/jobs/batch"), 422)


def test_repeated_batch_gets_the_same_response(api: Service) -> None:
    key, before = fresh(), count()
    first, second = (post(api, key, {"jobs": [{}, {"delay": 1}]}, "/jobs/batch") for _ in range(2))
    assert (second.status_code, second.json()) == (202, first.json())
    assert second.headers["Idempotency-Replayed"] == "true"
    assert count() == before + 2


def test_response_200_for_a_taken_unique_key_is_stored(api: Service) -> None:
    key, unique = fresh(), fresh()
    holder = api.post(uniqueKey=unique)
    first, second = (post(api, key, {"uniqueKey": unique}) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json() == {"jobId": holder}
    assert second.headers["Idempotency-Replayed"] == "true"


def test_refusal_is_not_stored(api: Service) -> None:
    key = fresh()
    refused(post(api, key, {"delay": -1}), 422)
    assert "Idempotency-Replayed" not in post(api, key, {}).headers


def test_bare_and_quoted_keys_are_equal(api: Service) -> None:
    key = fresh()
    assert post(api, f'"{key}"', {}).json() == post(api, key, {}).json()
    odd = f"{fresh()} , \\ ;"
    quoted = '"' + odd.replace("\\", "\\\\") + '"'
    assert post(api, quoted, {}).json() == post(api, quoted, {}).json()


@pytest.mark.parametrize(
    "key",
    [
        "",
        '""',
        '"',
        '"open',
        'mid"quote',
        "two words",
        "a,b",
        '"a", "b"',
        "a;b",
        '"a\\b"',
        "x" * 256,
        '"' + "x" * 256 + '"',
        "ü",
        "a\tb",
        ":YQ==:x:,",
    ],
)
def test_malformed_key_is_refused(api: Service, key: str) -> None:
    before = count()
    reply = api.client.post("/jobs", headers={"Idempotency-Key": key.encode()})  # type: ignore[dict-item]
    assert "Idempotency-Key" in refused(reply, 400)["detail"]
    assert count() == before


def test_longest_key_is_accepted(api: Service) -> None:
    key = fresh().ljust(255, "x")
    assert post(api, key, {}).json() == post(api, f'"{key}"', {}).json()


@pytest.mark.parametrize("second", ["a", "b"])
def test_repeated_header_is_refused(api: Service, second: str) -> None:
    before = count()
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        connection.sendall(
            b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n"
            b"Idempotency-Key: a\r\nIdempotency-Key: " + second.encode() + b"\r\n\r\n"
        )
        connection.settimeout(10)
        answer = connection.recv(10_000)
    assert b" 400 " in answer.partition(b"\r\n")[0]
    assert count() == before


def at_once(ask: Any) -> list[httpx.Response]:
    with ThreadPoolExecutor(50) as pool:
        return list(pool.map(lambda _: ask(), range(50)))


@pytest.mark.parametrize("path", ["/jobs", "/jobs/batch"])
def test_fifty_concurrent_requests_with_one_idempotency_key_make_one_job(api: Service, path: str) -> None:
    key, before = fresh(), count()
    body = {"jobs": [{"payload": {"result": n}} for n in range(100)]} if path == "/jobs/batch" else {}
    replies = at_once(lambda: post(api, key, body, path))
    assert {reply.status_code for reply in replies} <= {202, 409}
    made = [reply for reply in replies if reply.status_code == 202]
    assert len({reply.text for reply in made}) == 1
    assert sum("Idempotency-Replayed" not in reply.headers for reply in made) == 1
    assert count() == before + (100 if path == "/jobs/batch" else 1)
    for reply in replies:
        if reply.status_code == 409:
            refused(reply, 409)


def test_second_request_is_409_while_the_first_is_running(api: Service) -> None:
    key = fresh()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO jobs%'"
    with ThreadPoolExecutor(1) as pool, transaction() as connection:
        connection.execute(text("LOCK TABLE jobs IN SHARE MODE"))  # no job can be added until this ends
        first = pool.submit(post, api, key, {})
        eventually(lambda: api.sql(waiting) == [(1,)])
        assert "under way" in refused(post(api, key, {}), 409)["detail"]
    assert first.result().status_code == 202
    assert post(api, key, {}).json() == first.result().json()


def test_fifty_concurrent_requests_with_one_unique_key_make_one_job(api: Service) -> None:
    unique, before = fresh(), count()
    replies = at_once(lambda: api.client.post("/jobs", json={"uniqueKey": unique, "delay": 60}))
    assert sorted(reply.status_code for reply in replies) == [200] * 49 + [202]
    assert len({reply.text for reply in replies}) == 1
    assert len({reply.headers["Location"] for reply in replies}) == 1
    assert count() == before + 1


def test_batches_with_reordered_unique_keys_do_not_deadlock(api: Service) -> None:
    keys = [fresh() for _ in range(30)]
    before = count()

    def ask(n: int) -> httpx.Response:
        order = keys if n % 2 else keys[::-1]
        return api.client.post("/jobs/batch", json={"jobs": [{"uniqueKey": key, "delay": 60} for key in order]})

    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(ask, range(40)))
    assert {reply.status_code for reply in replies} == {202}
    assert len({frozenset(reply.json()["jobIds"]) for reply in replies}) == 1
    assert count() == before + 30


@pytest.fixture(scope="module")
def guarded() -> Iterator[Service]:
    service = Service({"JOBSVC_API_KEYS": "one:write:1,two:write:2,one-admin:admin:3"})
    yield service
    service.close()


def test_idempotency_keys_are_separate_for_each_api_key(guarded: Service) -> None:
    key = fresh()
    replies = [post(guarded, key, {}, **bearer(who)) for who in "123"]
    assert len({reply.text for reply in replies}) == 3
    assert post(guarded, key, {}, **bearer("1")).json() == replies[0].json()
    refused(post(guarded, key, {"delay": 1}, **bearer("1")), 422)
