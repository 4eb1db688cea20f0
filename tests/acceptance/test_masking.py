"""Secrets that HTTP_REQUEST holds: sent to the target, shown to write and admin keys, masked everywhere else.

Places: payload.headers, result.headers, URLs in both; GET of one job, waited for or not, HEAD, lists, schedules (GET of
one and of all), webhook data, the delivery's own payload, error texts. Callers: read, write, admin, a service without
keys. Kinds: each word that makes a name a secret, in any case, two spellings of one name, names that only seem alike.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.http import basic, bearer
from tests.support.raw_target import RawTarget, raw_target
from tests.support.service import Service, eventually

READ, WRITE, ADMIN = "r-key", "w-key", "a-key"
WEBHOOK_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD1Zq2YfQ="

SECRET = {
    "Authorization": "s3cret-1",
    "proxy-authorization": "s3cret-2",
    "COOKIE": "s3cret-3",
    "X-Auth": "s3cret-4",
    "PRIVATE-TOKEN": "s3cret-5",
    "X-Api-Key": "s3cret-6",
    "Client-Secret": "s3cret-7",
    "X-Password": "s3cret-8",
    "X-Hub-Signature-256": "s3cret-9",
    "X-Session-Id": "s3cret-10",
    "aws-credentials": "s3cret-11",
    "x-api-key": "s3cret-12",
}
PLAIN = {"Accept": "text/plain", "X-Request-Id": "7"}
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: s3cret-a\r\nset-cookie: s3cret-b\r\n"
    b"X-Refresh-Token: s3cret-c\r\nWWW-Authenticate: s3cret-d\r\nX-Plain: 1\r\n"
    b"X-Database: postgres://app:s3cret-e@db/x\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
)


@pytest.fixture(scope="module")
def target() -> Iterator[RawTarget]:
    with raw_target() as found:
        found.answers["/work"] = ANSWER
        yield found


@pytest.fixture(scope="module")
def service(apart: dict[str, str]) -> Iterator[Service]:
    keys = f"eye:read:{READ},hand:write:{WRITE},boss:admin:{ADMIN}"
    env = {"JOBSVC_API_KEYS": keys, "JOBSVC_WEBHOOK_SECRETS": WEBHOOK_SECRET, "JOBSVC_SWEEP_SECONDS": "0.2"}
    service = Service({**env, **apart}, key=ADMIN)
    service.worker()
    yield service
    service.close()


@pytest.fixture(scope="module")
def done(service: Service, target: RawTarget) -> str:
    """An HTTP_REQUEST that completed, and whose webhook was delivered."""
    payload = {"url": f"{target.url}/work", "headers": {**SECRET, **PLAIN, "X-Next": "https://u:s3cret-f@x.example/"}}
    job_id = service.post("HTTP_REQUEST", payload, webhookUrl=f"{target.url}/hook", tags=["masked"])
    service.until(job_id, "COMPLETED")
    eventually(lambda: [seen for seen in target.seen if seen.path == "/hook"])
    return job_id


def get(service: Service, path: str, key: str, **headers: str) -> Any:
    reply = service.client.get(path, headers={**bearer(key), **headers})
    assert reply.status_code == 200, reply.text
    return reply.json()


def check_masked(job: dict[str, Any]) -> None:
    assert "s3cret" not in json.dumps(job)
    sent = job["payload"]["headers"]
    assert {name: sent[name] for name in SECRET} == dict.fromkeys(SECRET, "***")
    assert {name: sent[name] for name in PLAIN} == PLAIN
    assert sent["X-Next"] == "https://u:***@x.example/"
    if job["result"]:
        came = job["result"]["headers"]
        assert [came[name] for name in ("set-cookie", "x-refresh-token", "www-authenticate")] == ["***"] * 3
        assert (came["x-plain"], came["x-database"]) == ("1", "postgres://app:***@db/x")
        assert (job["result"]["status"], job["result"]["body"]) == (200, "ok")


def test_the_target_gets_the_real_values(done: str, target: RawTarget) -> None:
    [sent] = [seen.headers for seen in target.seen if seen.path == "/work"]
    assert sent["authorization"] == "s3cret-1"
    assert sent["x-session-id"] == "s3cret-10"
    assert sent["x-next"] == "https://u:s3cret-f@x.example/"


def test_a_read_key_sees_masked_jobs(service: Service, done: str) -> None:
    check_masked(get(service, f"/jobs/{done}", READ))
    check_masked(get(service, f"/jobs/{done}", READ, Prefer="wait=1"))
    [listed] = get(service, "/jobs?tag=masked", READ)["jobs"]
    check_masked(listed)
    check_masked(service.client.get(f"/jobs/{done}", headers=basic(READ)).json())
    check_masked(service.client.get(f"/jobs/{done}", headers={"Authorization": "", "X-API-Key": READ}).json())
    assert "s3cret" not in service.client.get(f"/jobs/{done}/attempts", headers=bearer(READ)).text
    assert "s3cret" not in service.client.get(f"/jobs/{done}/events", headers=bearer(READ)).text


@pytest.mark.parametrize("key", [WRITE, ADMIN])
def test_write_and_admin_keys_see_the_real_values(service: Service, done: str, key: str) -> None:
    [listed] = get(service, "/jobs?tag=masked", key)["jobs"]
    for job in (get(service, f"/jobs/{done}", key), listed):
        assert {name: job["payload"]["headers"][name] for name in SECRET} == SECRET
        assert "s3cret-a" in job["result"]["headers"]["set-cookie"]


def test_a_service_without_keys_shows_the_real_values(api: Service) -> None:
    job_id = api.post("HTTP_REQUEST", {"url": "https://example.com/", "headers": SECRET}, delay=600)
    assert api.job(job_id)["payload"]["headers"] == SECRET


def test_write_key_sees_real_values_after_a_wait_or_an_action(service: Service, target: RawTarget) -> None:
    body = {"type": "HTTP_REQUEST", "payload": {"url": f"{target.url}/work", "headers": SECRET}}
    reply = service.client.post("/jobs", json=body, headers={**bearer(WRITE), "Prefer": "wait=20"})
    assert (reply.status_code, reply.json()["payload"]["headers"]) == (200, SECRET)
    job_id = service.post("HTTP_REQUEST", body["payload"], delay=600)
    reply = service.client.post(f"/jobs/{job_id}/cancel", headers=bearer(WRITE))
    assert reply.json()["payload"]["headers"] == SECRET


def test_masked_and_unmasked_responses_have_different_etags(service: Service, done: str) -> None:
    def tag(key: str) -> str:
        return service.client.get(f"/jobs/{done}", headers=bearer(key)).headers["ETag"]

    masked, whole = tag(READ), tag(WRITE)
    assert masked != whole
    assert tag(ADMIN) == whole
    assert service.client.head(f"/jobs/{done}", headers=bearer(READ)).headers["ETag"] == masked
    for key, sent, status in ((READ, masked, 304), (READ, whole, 200), (WRITE, whole, 304), (WRITE, masked, 200)):
        reply = service.client.get(f"/jobs/{done}", headers={**bearer(key), "If-None-Match": sent})
        assert reply.status_code == status
    for key, sent, status in ((READ, masked, 200), (READ, whole, 412), (WRITE, whole, 200), (WRITE, masked, 412)):
        reply = service.client.get(f"/jobs/{done}", headers={**bearer(key), "If-Match": sent})
        assert reply.status_code == status


def test_response_without_secrets_has_one_etag(service: Service) -> None:
    job_id = service.post(delay=600)
    tags = {service.client.get(f"/jobs/{job_id}", headers=bearer(key)).headers["ETag"] for key in (READ, WRITE, ADMIN)}
    assert len(tags) == 1


def test_webhook_data_is_masked(service: Service, done: str, target: RawTarget) -> None:
    [seen] = [seen for seen in target.seen if seen.path == "/hook"]
    check_masked(json.loads(seen.body)["data"])
    for key in (READ, ADMIN):
        delivery = get(service, f"/jobs/{service.job(done)['webhookJobId']}", key)
        check_masked(delivery["payload"]["body"]["data"])


def test_delivery_stored_before_masking_is_masked_for_read_keys(service: Service, done: str) -> None:
    delivery = service.job(done)["webhookJobId"]
    data = json.dumps(service.job(done))
    service.sql(
        "UPDATE jobs SET payload = jsonb_set(payload, '{body,data}', %s::jsonb), version = version + 1 WHERE id = %s",
        data,
        delivery,
    )
    assert "s3cret" in json.dumps(get(service, f"/jobs/{delivery}", ADMIN))
    check_masked(get(service, f"/jobs/{delivery}", READ)["payload"]["body"]["data"])
    listed = get(service, "/jobs?type=WEBHOOK&limit=200", READ)["jobs"]
    assert "s3cret" not in json.dumps(listed)


def test_schedules_are_masked(service: Service) -> None:
    job = {"type": "HTTP_REQUEST", "payload": {"url": "https://example.com/", "headers": {**SECRET, **PLAIN}}}
    put = service.client.put("/schedules/masked", json={"cron": "@yearly", "job": job})
    assert put.json()["job"] == job
    for shown in (get(service, "/schedules/masked", READ), get(service, "/schedules", READ)["schedules"][0]):
        headers = shown["job"]["payload"]["headers"]
        assert headers == {**dict.fromkeys(SECRET, "***"), **PLAIN}
    for key in (WRITE, ADMIN):
        assert get(service, "/schedules/masked", key)["job"] == job
    service.client.delete("/schedules/masked")


def test_payloads_of_other_types_are_not_masked(service: Service) -> None:
    payload = {"result": {"headers": {"Authorization": "shown"}}}
    assert get(service, f"/jobs/{service.post(payload=payload, delay=600)}", READ)["payload"] == payload
    job_id = service.post("HTTP_REQUEST", {"url": "https://example.com/"}, delay=600)
    for odd in ({"headers": ["Authorization"]}, {"headers": None, "url": 1}, {"url": "http://u:s3cret@h/"}):
        service.sql("UPDATE jobs SET payload = %s::jsonb WHERE id = %s", json.dumps(odd), job_id)
        shown = get(service, f"/jobs/{job_id}", READ)["payload"]
        assert shown == (odd if "s3cret" not in json.dumps(odd) else {"url": "http://u:***@h/"})
    service.client.post(f"/jobs/{job_id}/cancel")


def test_error_text_contains_no_secret(service: Service) -> None:
    job_id = service.post("HTTP_REQUEST", {"url": "https://example.com/", "headers": {"X-Key": "x"}}, delay=600)
    # As it may come in by SQL, where no schema was checked.
    odd = {"url": "https://u:s3cret@example.com/", "headers": {"X-Key": "s3cret\n"}, "extra": "s3cret"}
    service.sql(
        "UPDATE jobs SET payload = %s::jsonb, max_attempts = 1, retry_intervals = '{}', due_at = now(), "
        "dispatched_at = NULL WHERE id = %s",
        json.dumps(odd),
        job_id,
    )
    service.until(job_id, "FAILED")
    shown = get(service, f"/jobs/{job_id}/attempts", READ)["attempts"][0]["error"]
    assert "s3cret" not in json.dumps(shown)
    assert "X-Key" in shown["message"]
