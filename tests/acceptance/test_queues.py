"""Queues, workers and concurrency keys, from outside."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobsvc.states import Status
from tests.acceptance.test_access import ADMIN, READ, WRITE
from tests.support.http import bearer, refused
from tests.support.service import Service


def queue(service: Service, name: str = "default") -> dict[str, Any]:
    [found] = [one for one in service.client.get("/queues").json()["queues"] if one["name"] == name]
    return dict(found)


def pause(service: Service, name: str) -> dict[str, Any]:
    reply = service.client.post(f"/queues/{name}/pause")
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def resume(service: Service, name: str) -> dict[str, Any]:
    reply = service.client.post(f"/queues/{name}/resume")
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


@pytest.fixture
def lively(stack: Service) -> Iterator[Service]:
    """A stack whose queues are all resumed in the end."""
    yield stack
    resume(stack, "default")


def test_queues_are_listed_in_order(api: Service) -> None:
    queues = api.client.get("/queues").json()["queues"]
    assert [one["name"] for one in queues][:3] == ["high", "default", "low"]
    for one in queues:
        assert list(one) == ["name", "paused", "counts", "oldestWaitingSeconds"]
        assert list(one["counts"]) == [*Status]


def test_queue_order_is_priority(lively: Service, tmp_path: Path) -> None:
    """Also among jobs that were there before: the last one put into the first queue goes first."""
    notes = tmp_path / "notes"
    blocker = lively.post(payload={"durationMs": 800})
    lively.until(blocker, "PROCESSING")
    names = {lively.post("NOTE", {"path": str(notes)}, queue=name): name for name in ("low", "low", "default", "high")}
    for job_id in names:
        lively.until(job_id, "COMPLETED")
    ran = [names[line.split()[0]] for line in notes.read_text().splitlines()]
    assert ran == ["high", "default", "low", "low"]


def test_paused_queue_accepts_jobs_and_starts_them_when_resumed(lively: Service, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    running = lively.post(payload={"durationMs": 700, "result": "finished"})
    lively.until(running, "PROCESSING")
    before = [lively.post("NOTE", {"path": str(notes)}) for _ in range(2)]
    shown = pause(lively, "default")
    assert (shown["name"], shown["paused"]) == ("default", True)
    assert shown["counts"]["PENDING"] >= 2
    after = [lively.post("NOTE", {"path": str(notes)}), lively.post("NOTE", {"path": str(notes)}, delay=0.2)]
    assert lively.until(running, "COMPLETED")["result"] == "finished"
    lower = lively.post(queue="low")
    lively.until(lower, "COMPLETED")
    time.sleep(0.5)  # nothing to wait for: it must not happen
    assert not notes.exists()
    assert {lively.job(job_id)["status"] for job_id in before + after} == {"PENDING", "SCHEDULED"}
    assert queue(lively)["paused"] is True
    assert resume(lively, "default")["paused"] is False
    for job_id in before + after:
        assert lively.until(job_id, "COMPLETED", timeout=10)["attempts"] == 1


@pytest.mark.parametrize("name", ["nope", "DEFAULT", "%00", "a" * 300, "\u00fc", "%ED%A0%80"])
@pytest.mark.parametrize("act", ["pause", "resume"])
def test_unserved_queue_is_404(api: Service, name: str, act: str) -> None:
    problem = refused(api.client.post(f"/queues/{name}/{act}"), 404)
    assert "high, default, low" in problem["detail"]


@pytest.mark.parametrize("act", ["pause", "resume"])
def test_bad_request_pauses_nothing(api: Service, act: str) -> None:
    url = f"/queues/low/{act}"
    refused(api.client.post(url, json={"for": 5}), 422)
    refused(api.client.post(url, json=[]), 422)
    refused(api.client.post(url, content="{", headers={"Content-Type": "application/json"}), 400)
    refused(api.client.post(url, content="{}", headers={"Content-Type": "text/plain"}), 415)
    refused(api.client.post(f"{url}?now=1"), 422)
    refused(api.client.get(url), 405)
    assert queue(api, "low")["paused"] is False
    assert api.client.post("/queues/low/resume", json={}).status_code == 200


@pytest.mark.parametrize("path", ["/queues?limit=1", "/workers?queue=low"])
def test_unknown_parameters_are_refused(api: Service, path: str) -> None:
    refused(api.client.get(path), 422)


@pytest.mark.parametrize(
    "fields",
    [
        {"concurrencyKey": ""},
        {"concurrencyKey": "k" * 256},
        {"concurrencyKey": 1},
        {"concurrencyKey": "a\u0000b"},
        {"concurrencyLimit": 1},
        {"concurrencyKey": "k", "concurrencyLimit": 0},
        {"concurrencyKey": "k", "concurrencyLimit": 1001},
        {"concurrencyKey": "k", "concurrencyLimit": "1"},
        {"concurrencyKey": "k", "concurrencyLimit": 1.5},
        {"concurrencyKey": "k", "concurrencyLimit": True},
    ],
)
def test_bad_concurrency_is_refused(api: Service, fields: dict[str, Any]) -> None:
    refused(api.client.post("/jobs", json=fields), 422)


def test_each_action_needs_its_scope() -> None:
    service = Service({"JOBSVC_API_KEYS": f"eye:read:{READ}, hand:write:{WRITE}, boss:admin:{ADMIN}"})
    try:
        for path in ("/queues", "/workers"):
            refused(service.client.get(path), 401)
            assert service.client.get(path, headers=bearer(READ)).status_code == 200
        for act in ("pause", "resume"):
            for key, status in ((READ, 403), (WRITE, 403), (ADMIN, 200)):
                reply = service.client.post(f"/queues/low/{act}", headers=bearer(key))
                assert reply.status_code == status, reply.text
    finally:
        service.close()
