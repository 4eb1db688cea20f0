"""Problems name the place (a pointer into the body, or a query parameter), the known names and the closest one.

Unknown names: body fields at every depth (the job, retry, a handler's payload with nested models, lists, unions and
dataclasses, batches, schedules), query parameters of every route, types, queues, statuses. Wrong values of query
parameters, repeated ones, lists, the query as a whole. Texts that a header brought.
"""

import json
import socket
from typing import Any

import httpx
import pytest

from tests.support.http import refused
from tests.support.service import Service


@pytest.fixture(scope="module")
def service(apart: dict[str, str]) -> Any:
    service = Service({"JOBSVC_HANDLERS": "tests.support.handlers.basic,tests.support.handlers.outgoing", **apart})
    yield service
    service.close()


def errors(reply: httpx.Response) -> list[dict[str, str]]:
    return list(refused(reply, 422)["errors"])


@pytest.mark.parametrize(
    ("query", "parameter", "words"),
    [
        ("status=failed", "status", ["'failed'", "PENDING", "CANCELLED", "did you mean 'FAILED'"]),
        ("status=FAILED&status=DONE&status=PENDNG", "status", ["'DONE'", "RETRYING"]),
        ("statuss=FAILED", "statuss", ["createdAfter", "limit", "did you mean 'status'"]),
        ("created_after=2026-01-01T00:00:00Z", "created_after", ["did you mean 'createdAfter'"]),
        ("LIMIT=5", "LIMIT", ["did you mean 'limit'"]),
        ("page=2", "page", ["cursor", "tag"]),
        ("a%00%20b/c~d=1", "a\ufffd b/c~d", ["no query parameter"]),
        ("limit=500", "limit", ["200"]),
        ("limit=" + "9" * 5000, "limit", ["whole number"]),
        ("limit=1&limit=2", "limit", ["more than once"]),
        ("tag=ok&tag=", "tag", ["1 character"]),
        ("tag=ok&tag=a%00", "tag", ["U+0000"]),
        ("createdAfter=2026-01-01T00:00:00%2B05:60", "createdAfter", ["RFC 3339"]),
        ("cursor=x", "cursor", ["cursor"]),
    ],
)
def test_wrong_query_parameter_is_named(service: Service, query: str, parameter: str, words: list[str]) -> None:
    reply = service.client.get(f"/jobs?{query}")
    for error in errors(reply):
        assert list(error) == ["parameter", "detail"]
        assert error["parameter"] == parameter
        assert "/" not in error["detail"].partition(";")[0] or parameter not in ("status", "tag")
    text = " ".join(error["detail"] for error in errors(reply))
    for word in words:
        assert word in text
    assert f"query parameter {parameter}: " in reply.json()["detail"]
    assert "query parameter '" not in reply.json()["detail"].replace("no query parameter '", "")


def test_all_wrong_parameters_are_named(service: Service) -> None:
    reply = service.client.get("/jobs?status=x&status=y&limit=0&queue=")
    assert sorted(error["parameter"] for error in errors(reply)) == ["limit", "queue", "status", "status"]


def test_parameters_are_refused_where_none_exist(service: Service) -> None:
    job_id = service.post(delay=600)
    for method, path in (("GET", f"/jobs/{job_id}"), ("POST", "/jobs"), ("GET", "/queues"), ("POST", "/jobs/batch")):
        [error] = errors(service.client.request(method, f"{path}?verbose=1"))
        assert error["parameter"] == "verbose"
        assert "no query parameters are known here" in error["detail"]


def test_every_operation_refuses_undeclared_input(service: Service) -> None:
    job_id = service.post(delay=600)
    for path, item in service.client.get("/openapi.json").json()["paths"].items():
        url = path.format(job_id=job_id, name="default")
        for method, operation in item.items():
            [error] = errors(service.client.request(method, f"{url}?undeclared=1"))
            assert error["parameter"] == "undeclared"
            if method != "get" and "requestBody" not in operation:
                [error] = errors(service.client.request(method, url, json={"undeclared": 1}))
                assert error["pointer"] == "/undeclared"


def test_problem_may_concern_the_whole_query(service: Service) -> None:
    [error] = errors(service.client.post("/jobs/cancel"))
    assert (error["parameter"], error["detail"]) == (
        "",
        "give at least one query parameter that selects jobs",
    )


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({"dely": 5}, "/dely", ["webhookUrl", "expiresIn", "did you mean 'delay'"]),
        ({"unique_key": "x"}, "/unique_key", ["did you mean 'uniqueKey'"]),
        ({"TYPE": "TEST_JOB"}, "/TYPE", ["did you mean 'type'"]),
        ({"zzz": 1, "queue": "default"}, "/zzz", ["known fields: type, payload, queue"]),
        ({"retry": {"maximum": 1}}, "/retry/maximum", ["max", "interval", "backoff", "did you mean"]),
        (
            {"retry": {"backoff": {"initial": 1, "factr": 2}}},
            "/retry/backoff/factr",
            ["jitter", "did you mean 'factor'"],
        ),
        ({"payload": {"duration": 5}}, "/payload/duration", ["steps", "did you mean 'durationMs'"]),
        (
            {"type": "HTTP_REQUEST", "payload": {"url": "https://example.com", "header": {}}},
            "/payload/header",
            ["expectStatus", "did you mean 'headers'"],
        ),
        ({"type": "NESTED", "payload": {"parts": [{"sise": 1}]}}, "/payload/parts/0/sise", ["did you mean 'size'"]),
        ({"type": "NESTED", "payload": {"named": {"a": {"sise": 1}}}}, "/payload/named/a/sise", ["colour", "'size'"]),
        ({"type": "NESTED", "payload": {"maybe": {"sise": 1}}}, "/payload/maybe/sise", ["did you mean 'size'"]),
        ({"type": "NESTED", "payload": {"pair": [1, {"sise": 1}]}}, "/payload/pair/1/sise", ["did you mean 'size'"]),
        ({"type": "DATACLASS", "payload": {"wdth": 1}}, "/payload/wdth", ["known fields: width", "'width'"]),
        ({"type": "test_job"}, "/type", ["known types: ", "did you mean 'TEST_JOB'"]),
        ({"queue": "hihg"}, "/queue", ["known queues: high, default, low", "did you mean 'high'"]),
    ],
)
def test_unknown_name_lists_the_known_ones(
    service: Service, body: dict[str, Any], pointer: str, words: list[str]
) -> None:
    for reply, base in (
        (service.client.post("/jobs", json=body), ""),
        (service.client.post("/jobs/batch", json={"jobs": [{}, body]}), "/jobs/1"),
        (service.client.put("/schedules/known-names", json={"cron": "@daily", "job": body}), "/job"),
    ):
        found = {error["pointer"]: error["detail"] for error in errors(reply)}
        assert base + pointer in found, found
        for word in words:
            assert word in found[base + pointer]
        assert all("parameter" not in error for error in errors(reply))


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"payload": []}, "/payload"),
        ({"retry": 3}, "/retry"),
        ({"retry": {"backoff": 5}}, "/retry/backoff"),
        ({"rateLimit": "10/s"}, "/rateLimit"),
    ],
)
def test_other_value_than_an_object_is_refused_in_words_of_json(service: Service, body: Any, pointer: str) -> None:
    [error] = errors(service.client.post("/jobs", json=body))
    assert error == {"pointer": pointer, "detail": "input should be an object"}


def test_too_many_dependencies_are_counted(service: Service) -> None:
    job_id = "01890a5d-ac96-774b-bcce-b302099a8057"
    [error] = errors(service.client.post("/jobs", json={"dependsOn": [job_id] * 1001}))
    assert error == {"pointer": "/dependsOn", "detail": "list should have at most 1000 items, not 1001"}


def test_suggestions_for_a_schedule_are_valid_there(service: Service) -> None:
    [error] = errors(service.client.put("/schedules/x", json={"cron": "@daily", "job": {"run_at": 1}}))
    assert not [name for name in ("runAt", "dependsOn", "onDependencyFailure") if name in error["detail"]]
    [error] = errors(service.client.put("/schedules/x", json={"cron": "@daily", "job": {}, "time_zone": "UTC"}))
    assert "known fields: cron, timezone, enabled, job; did you mean 'timezone'?" in error["detail"]


def test_body_is_refused_where_none_is_expected(service: Service) -> None:
    [error] = errors(service.client.post(f"/jobs/{service.post(delay=600)}/cancel", json={"force": True}))
    assert (error["pointer"], "no fields are known here" in error["detail"]) == ("/force", True)


def test_cron_step_beyond_its_field_is_refused(service: Service) -> None:
    [error] = errors(service.client.put("/schedules/x", json={"cron": "*/90 * * * *", "job": {}}))
    assert error == {"pointer": "/cron", "detail": "has a step of 90 in the minutes, of which there are 60"}


def test_too_large_numbers_are_named_in_batches_and_schedules(service: Service) -> None:
    number = "9" * 5000
    headers = {"Content-Type": "application/json", "Idempotency-Key": "large"}
    for method, path, body, pointer in (
        ("POST", "/jobs", f'{{"payload": {{"result": {number}}}}}', "/payload/result"),
        (
            "POST",
            "/jobs/batch",
            f'{{"jobs": [{{}}, {{"payload": {{"result": [{number}]}}}}]}}',
            "/jobs/1/payload/result/0",
        ),
        ("PUT", "/schedules/x", f'{{"cron": "@daily", "job": {{"timeout": {number}}}}}', "/job/timeout"),
    ):
        reply = service.client.request(method, path, content=body, headers=headers)
        assert errors(reply) == [{"pointer": pointer, "detail": "is a number too large"}]
    assert service.client.post("/jobs", json={}, headers={"Idempotency-Key": "large"}).status_code == 202


def test_problems_are_compact(service: Service) -> None:
    for reply in (
        service.client.get("/nope"),
        service.client.get("/jobs?limit=0"),
        service.client.post("/jobs", json={"x": 1}),
        service.client.put("/jobs"),
    ):
        assert reply.text == json.dumps(reply.json(), separators=(",", ":")) + "\n"


@pytest.mark.parametrize("key", [b"caf\xe9", "schlüssel".encode(), b"\xff", b"", b'""', b"a b", b"x" * 256, b"a,b"])
def test_wrong_idempotency_key_names_the_expected_form(service: Service, key: bytes) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        head = b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 0\r\n"
        connection.sendall(head + b"Idempotency-Key: " + key + b"\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    detail = json.loads(answer.partition(b"\r\n\r\n")[2])["detail"]
    assert "1 to 255 printable ASCII characters" in detail
    assert " 0 characters" not in detail
