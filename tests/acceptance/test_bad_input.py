"""Bad input is refused with a clear problem: nothing is stored, and the response is never a 5xx or HTML."""

import gzip
import json
import socket
import uuid
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from jobsvc.db.engine import transaction
from tests.support.http import refused
from tests.support.service import Service

JSON = {"Content-Type": "application/json"}
YEAR = 366 * 86400


def count() -> int:
    with transaction() as connection:
        return int(connection.execute(text("SELECT count(*) FROM jobs")).scalar_one())


def post(api: Service, body: bytes | str, headers: dict[str, str] | None = None) -> httpx.Response:
    before = count()
    reply = api.client.post("/jobs", content=body, headers=JSON if headers is None else headers)
    assert count() == before + (reply.status_code == 202)
    return reply


def test_missing_body_counts_as_an_empty_object(api: Service) -> None:
    reply = api.client.post("/jobs")
    assert reply.status_code == 202
    assert api.job(reply.json()["jobId"])["type"] == "TEST_JOB"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{", "line 1"),
        (b"{} {}", "line 1"),
        (b" ", "line 1"),
        (b'{"delay": NaN}', "NaN is not valid JSON"),
        (b'{"delay": -Infinity}', "-Infinity is not valid JSON"),
        (b'{"type": "\xff"}', "not UTF-8 at byte 10"),
        (b"\xef\xbb\xbf{}", ""),
        ('{"type": "TEST_JOB"}'.encode("utf-16"), "UTF-8"),
        (b'{"type": "TEST_JOB", "type": "TEST_JOB"}', "the key 'type' appears more than once"),
        (b'{"payload": {"result": {"a": 1, "a": 1}}}', "the key 'a' appears more than once"),
        (b'{"payload": {"result": ' + b"[" * 10_000 + b"]" * 10_000 + b"}}", "nested"),
        (b"[" * 200_000, "nested"),
    ],
)
def test_invalid_json_is_400(api: Service, body: bytes, detail: str) -> None:
    assert detail in refused(post(api, body), 400)["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ("[]", ""),
        ("null", ""),
        ('"text"', ""),
        ("1", ""),
        ('{"unknown": 1}', "/unknown"),
        ('{"a/b~c": 1}', "/a~1b~0c"),
        ('{"type": "NO_SUCH"}', "/type"),
        ('{"type": 1}', "/type"),
        ('{"type": null}', "/type"),
        ('{"type": "TEST\\u0000JOB"}', "/type"),
        ('{"payload": []}', "/payload"),
        ('{"payload": null}', "/payload"),
        ('{"payload": {"result": "a\\u0000"}}', "/payload/result"),
        ('{"payload": {"result": {"a\\u0000": 1}}}', "/payload/result/a\ufffd"),
        ('{"payload": {"result": ["\\ud800"]}}', "/payload/result/0"),
        ('{"payload": {"result": 1e999}}', "/payload/result"),
        ('{"payload": {"result": ' + "1" * 5000 + "}}", "/payload/result"),
        ('{"payload": {"result": [1, {"a": -' + "9" * 900_000 + "}]}}", "/payload/result/1/a"),
        ('{"delay": ' + "9" * 5000 + "}", "/delay"),
        ('{"concurrencyLimit": ' + "9" * 4301 + "}", "/concurrencyLimit"),
        ('{"type": "SUM", "payload": {"numbers": [' + "1" * 5000 + "]}}", "/payload/numbers/0"),
        ('{"payload": {"result": -1e400}}', "/payload/result"),
        ('{"payload": {"result": 1' + "0" * 5000 + ".0}}", "/payload/result"),
        ('{"payload": {"result": ' + "[" * 200 + "]" * 200 + "}}", "/payload/result" + "/0" * 98),
        ('{"payload": {"durationMs": "5"}}', "/payload/durationMs"),
        ('{"payload": {"durationMs": -1}}', "/payload/durationMs"),
        ('{"payload": {"durationMs": 99999999999999999999}}', "/payload/durationMs"),
        ('{"payload": {"nope": 1}}', "/payload/nope"),
        ('{"type": "SUM", "payload": {}}', "/payload/numbers"),
        ('{"type": "SUM", "payload": {"numbers": [1, "2"]}}', "/payload/numbers/1"),
        ('{"type": "SUM", "payload": {"numbers": [1, true]}}', "/payload/numbers/1"),
        ('{"queue": "nope"}', "/queue"),
        ('{"queue": 1}', "/queue"),
        ('{"uniqueKey": 1}', "/uniqueKey"),
        ('{"uniqueKey": ""}', "/uniqueKey"),
        (f'{{"uniqueKey": "{"k" * 256}"}}', "/uniqueKey"),
        ('{"tags": "x"}', "/tags"),
        ('{"tags": [1]}', "/tags/0"),
        ('{"tags": [""]}', "/tags/0"),
        (f'{{"tags": ["x", "{"x" * 101}"]}}', "/tags/1"),
        ('{"tags": [' + '"x",' * 16 + '"x"]}', "/tags"),
        ('{"delay": -1}', "/delay"),
        ('{"delay": "1"}', "/delay"),
        ('{"delay": true}', "/delay"),
        (f'{{"delay": {YEAR + 1}}}', "/delay"),
        ('{"delay": 1e308}', "/delay"),
        ('{"delay": ' + "9" * 4000 + "}", "/delay"),
        ('{"delay": 1, "runAt": "2026-12-01T00:00:00Z"}', ""),
        ('{"runAt": "tomorrow"}', "/runAt"),
        ('{"runAt": 1798761600}', "/runAt"),
        ('{"runAt": "1798761600"}', "/runAt"),
        ('{"runAt": "2026-12-01"}', "/runAt"),
        ('{"runAt": "2026-12-01T00:00:00"}', "/runAt"),
        ('{"runAt": "2026-02-30T00:00:00Z"}', "/runAt"),
        ('{"runAt": "0001-01-01T00:00:00+14:00"}', "/runAt"),
        ('{"runAt": "0000-12-01T00:00:00Z"}', "/runAt"),
        ('{"runAt": "2026-12-01T00:00:00+05:60"}', "/runAt"),
        ('{"runAt": "2026-12-01T00:00:00-00:99"}', "/runAt"),
        ('{"runAt": "2026-12-01T00:00:00+24:00"}', "/runAt"),
        ('{"runAt": "2026-12-01T00:00:00+0500"}', "/runAt"),
        ('{"runAt": "2026-12-01T00:00:60Z"}', "/runAt"),
        ('{"runAt": "2026-12-01T24:00:00Z"}', "/runAt"),
        ('{"runAt": "2026-12-01T00:60:00Z"}', "/runAt"),
        ('{"runAt": "\\u0662026-12-01T00:00:00Z"}', "/runAt"),
        ('{"runAt": "9999-12-31T23:59:59Z"}', "/runAt"),
        ('{"retry": 3}', "/retry"),
        ('{"retry": {"max": -1}}', "/retry/max"),
        ('{"retry": {"max": 101}}', "/retry/max"),
        ('{"retry": {"max": 1.5}}', "/retry/max"),
        ('{"retry": {"interval": -1}}', "/retry/interval"),
        ('{"retry": {"interval": []}}', "/retry/interval"),
        ('{"retry": {"interval": [1, -1]}}', "/retry/interval/1"),
        ('{"retry": {"interval": "1"}}', "/retry/interval"),
        ('{"retry": {"max": "3"}}', "/retry/max"),
        ('{"retry": {"interval": [' + "1," * 100 + "1]}}", "/retry/interval"),
        ('{"retry": {"maximum": 1}}', "/retry/maximum"),
        ('{"retry": {"interval": 1, "backoff": {"initial": 1}}}', "/retry"),
        ('{"retry": {"backoff": 1}}', "/retry/backoff"),
        ('{"retry": {"backoff": []}}', "/retry/backoff"),
        ('{"retry": {"backoff": {}}}', "/retry/backoff/initial"),
        ('{"retry": {"backoff": {"initial": 0}}}', "/retry/backoff/initial"),
        ('{"retry": {"backoff": {"initial": -1}}}', "/retry/backoff/initial"),
        ('{"retry": {"backoff": {"initial": "1"}}}', "/retry/backoff/initial"),
        ('{"retry": {"backoff": {"initial": null}}}', "/retry/backoff/initial"),
        (f'{{"retry": {{"backoff": {{"initial": {YEAR + 1}}}}}}}', "/retry/backoff/initial"),
        ('{"retry": {"backoff": {"initial": 1, "factor": 0.5}}}', "/retry/backoff/factor"),
        ('{"retry": {"backoff": {"initial": 1, "factor": 101}}}', "/retry/backoff/factor"),
        ('{"retry": {"backoff": {"initial": 1, "max": -1}}}', "/retry/backoff/max"),
        (f'{{"retry": {{"backoff": {{"initial": 1, "max": {YEAR + 1}}}}}}}', "/retry/backoff/max"),
        ('{"retry": {"backoff": {"initial": 1, "jitter": 1.1}}}', "/retry/backoff/jitter"),
        ('{"retry": {"backoff": {"initial": 1, "jitter": -0.1}}}', "/retry/backoff/jitter"),
        ('{"retry": {"backoff": {"initial": 1, "jitter": true}}}', "/retry/backoff/jitter"),
        ('{"retry": {"backoff": {"initial": 1, "steps": 3}}}', "/retry/backoff/steps"),
        ('{"timeout": 0}', "/timeout"),
        ('{"timeout": -5}', "/timeout"),
        (f'{{"timeout": {YEAR + 1}}}', "/timeout"),
        ('{"timeout": "5"}', "/timeout"),
        ('{"expiresIn": 0}', "/expiresIn"),
        (f'{{"expiresIn": {YEAR + 1}}}', "/expiresIn"),
        ('{"expiresIn": "soon"}', "/expiresIn"),
        ('{"type": "HTTP_REQUEST"}', "/payload/url"),
        ('{"type": "HTTP_REQUEST", "payload": {"url": "ftp://example.com/"}}', "/payload/url"),
        ('{"type": "HTTP_REQUEST", "payload": {"url": "http://10.0.0.1/"}}', "/payload/url"),
    ],
)
def test_body_against_the_schema_is_422(api: Service, body: str, pointer: str) -> None:
    problem = refused(post(api, body), 422)
    assert pointer in [error["pointer"] for error in problem["errors"]]
    assert all(error["detail"] for error in problem["errors"])


def test_all_problems_are_reported_at_once(api: Service) -> None:
    problem = refused(post(api, '{"delay": -1, "queue": "nope", "type": "NOPE", "x": 1}'), 422)
    assert {error["pointer"] for error in problem["errors"]} == {"/delay", "/queue", "/type", "/x"}


@pytest.mark.parametrize(
    "text", ["2026-12-01t00:00:00z", "2026-12-01 00:00:00.123456789+23:59", "2026-12-01T00:00:00-00:00"]
)
def test_valid_times_are_accepted(api: Service, text: str) -> None:
    assert api.client.get("/jobs", params={"createdAfter": text}).status_code == 200


def test_unknown_type_lists_the_known_ones(api: Service) -> None:
    detail = refused(post(api, '{"type": "NO_SUCH"}'), 422)["errors"][0]["detail"]
    assert "HTTP_REQUEST" in detail
    assert "TEST_JOB" in detail


@pytest.mark.parametrize(
    "value",
    [0, -0.0, 10**400, 1.5e-7, "\U0001f600", "\ufffe", {"": None}, [[[]]], "x" * 100_000, {"__proto__": 1}],
    ids=lambda value: str(value)[:12],
)
def test_any_json_value_is_returned_unchanged(api: Service, value: Any) -> None:
    job_id = api.post(payload={"result": value})
    assert api.job(job_id)["payload"] == {"result": value}


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/xml"])
def test_other_media_type_is_415(api: Service, media_type: str) -> None:
    refused(post(api, "{}", {"Content-Type": media_type}), 415)


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "application/merge-patch+json"])
def test_json_media_types_are_accepted(api: Service, media_type: str) -> None:
    assert post(api, "{}", {"Content-Type": media_type}).status_code == 202


def test_too_large_body_is_413(api: Service) -> None:
    body = json.dumps({"payload": {"result": "x" * 2_000_000}})
    refused(post(api, body), 413)


def test_too_large_chunked_body_is_413(api: Service) -> None:
    before = count()
    chunks = (b" " * 100_000 for _ in range(20))
    refused(api.client.post("/jobs", content=chunks, headers=JSON), 413)
    assert count() == before


def test_chunked_body_is_accepted(api: Service) -> None:
    reply = api.client.post("/jobs", content=iter([b'{"payload"', b": {}}"]), headers=JSON)
    assert reply.status_code == 202


@pytest.mark.parametrize(
    "sent",
    [
        b"Content-Length: 200\r\n\r\n",
        b"Content-Length: 200\r\n\r\n{}",
        b"Content-Length: 200\r\n\r\n" + b'{"delay": 1',
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    ],
)
def test_interrupted_upload_stores_nothing(api: Service, sent: bytes) -> None:
    before = count()
    with socket.create_connection(("127.0.0.1", api.port)) as connection:
        connection.sendall(b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + sent)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(10)
        answer = connection.recv(10_000)
    assert answer == b"" or b" 400 " in answer.partition(b"\r\n")[0]
    assert count() == before


def test_content_encoding_is_415(api: Service) -> None:
    refused(post(api, gzip.compress(b"{}"), {**JSON, "Content-Encoding": "gzip"}), 415)


def test_list_of_many_problems_is_cut(api: Service) -> None:
    body = {"type": "HTTP_REQUEST", "payload": {"url": "http://1.1.1.1/", "expectStatus": [""] * 50_000}}
    assert len(refused(post(api, json.dumps(body)), 422)["errors"]) <= 20
    keys = ",".join(f'"{number}":1' for number in range(50_000))
    refused(post(api, f'{{"payload": {{"result": {{{keys},"49999":1}}}}}}'), 400)
    assert len(refused(post(api, f"{{{keys}}}"), 422)["errors"]) == 20


@pytest.mark.parametrize("job_id", ["1", "not-a-uuid", "%00", str(uuid.UUID(int=0)), "🙂", "x" * 5000])
@pytest.mark.parametrize("path", ["/jobs/{}", "/jobs/{}/attempts"])
def test_unknown_job_is_404(api: Service, job_id: str, path: str) -> None:
    refused(api.client.get(path.format(job_id)), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", ""), ("GET", "/attempts"), ("GET", "/events"), ("DELETE", "")),
        *(("POST", "/cancel"), ("POST", "/retry"), ("POST", "/webhook")),
    ],
)
def test_only_canonical_ids_are_accepted(api: Service, method: str, path: str) -> None:
    job_id = api.post(delay=600)
    for spelled in (job_id.replace("-", ""), f"{{{job_id}}}", f"urn:uuid:{job_id}", f"{job_id}%0A"):
        refused(api.client.request(method, f"/jobs/{spelled}{path}"), 404)
    assert api.job(job_id.upper())["status"] == "SCHEDULED"


@pytest.mark.parametrize("path", ["/nope", "/jobs/", "/jobs//attempts", "/static/x"])
def test_unknown_path_is_404(api: Service, path: str) -> None:
    refused(api.client.get(path), 404)


@pytest.mark.parametrize(("method", "path"), [("PUT", "/jobs"), ("DELETE", "/healthz"), ("PATCH", "/queues")])
def test_wrong_method_is_405(api: Service, method: str, path: str) -> None:
    reply = api.client.request(method, path)
    refused(reply, 405)
    assert reply.headers["Allow"]


def test_unknown_query_parameter_is_refused(api: Service) -> None:
    before = count()
    refused(api.client.post("/jobs?dry=1", json={}), 422)
    refused(api.client.get(f"/jobs/{uuid.uuid4()}?verbose=1"), 422)
    assert count() == before


def test_healthz_and_readyz_answer(api: Service) -> None:
    assert api.client.get("/healthz").json() == {"status": "ok"}
    reply = api.client.get("/readyz")
    assert (reply.status_code, reply.json()) == (200, {"status": "ok", "postgres": "up", "redis": "up"})
