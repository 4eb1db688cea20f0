"""Traces and logs by which a job can be followed."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from jobsvc import tracing
from tests.acceptance.test_webhooks import NEW, Receiver, receiver  # noqa: F401
from tests.support.service import WORKERS, Service, eventually

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
HEADER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


def test_trace_continues_from_request_to_attempt(apart: dict[str, str], receiver: Receiver, tmp_path: Path) -> None:  # noqa: F811
    """Through HTTP_REQUEST and the webhook; without spans of ours, then with them."""
    spans = tmp_path / "spans"
    for env in ({}, {"JOBSVC_HANDLERS": "tests.support.otel_config", "SPANS": str(spans)}):
        receiver.seen.clear()
        service = Service({"JOBSVC_WEBHOOK_SECRETS": NEW, "JOBSVC_SWEEP_SECONDS": "0.2", **apart, **env})
        try:
            service.worker()
            job = {"type": "HTTP_REQUEST", "payload": {"url": receiver.url}, "webhookUrl": receiver.url}
            [job_id] = service.client.post("/jobs/batch", json={"jobs": [job]}, headers=HEADER).json()["jobIds"]
            sent = [seen.headers["traceparent"] for seen in receiver.reported(2)]
            assert [tracing.parse_traceparent(one) for one in sent] == sent
            assert {one[3:35] for one in sent} == {TRACE}
            assert len({one[36:52] for one in sent} | {PARENT}) == 3
            if env:
                _check_spans(spans, job_id, sent)
        finally:
            service.close()


def _check_spans(file: Path, job_id: str, sent: list[str]) -> None:
    def check() -> dict[str, Any] | None:
        found = [json.loads(line) for line in file.read_text().splitlines()]
        by_name = {span["name"]: span for span in found if span["attributes"].get("jobsvc.job", job_id) == job_id}
        return by_name if {"accept", "deliver", "run"} <= set(by_name) else None

    by_name = eventually(check)
    accept, deliver, run = (by_name[name] for name in ("accept", "deliver", "run"))
    assert accept["context"]["trace_id"] == run["context"]["trace_id"] == f"0x{TRACE}"
    assert accept["parent_id"] == f"0x{PARENT}"
    assert run["parent_id"] == accept["context"]["span_id"]
    assert deliver["links"][0]["context"]["trace_id"] == f"0x{TRACE}"
    assert sent[0][36:52] == run["context"]["span_id"][2:]
    assert run["attributes"] == {"jobsvc.type": "HTTP_REQUEST", "jobsvc.job": job_id}


def test_invalid_traceparent_is_ignored(api: Service) -> None:
    for header in ("x", f"00-{TRACE}-{PARENT}-01-more", "00-" + "0" * 32 + f"-{PARENT}-01"):
        assert api.client.post("/jobs", headers={"traceparent": header}).status_code == 202


@pytest.mark.parametrize("kind", sorted(WORKERS))
def test_json_logs_have_trace_and_job_ids(apart: dict[str, str], kind: str) -> None:
    service = Service({"JOBSVC_LOG": "json", "JOBSVC_HANDLERS": "tests.support.handlers.basic", **apart})
    try:
        worker = service.worker(kind)
        job_id = service.post("TALK", {"end": "raise"}, retry={"max": 0})
        service.until(job_id, "FAILED")
        worker.signal(signal.SIGTERM)
        worker.wait()
        lines = [json.loads(line) for line in worker.output.splitlines() if line != "Worker Started"]
        assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
        mine = {line["message"]: line for line in lines if line.get("jobId") == job_id}
        assert {(line["attempt"], line["type"]) for line in mine.values()} == {(1, "TALK")}
        with_progress_and_logs = mine["with its traceback"]
        assert (with_progress_and_logs["level"], with_progress_and_logs["logger"]) == ("ERROR", "some.library")
        assert "LookupError: caught" in with_progress_and_logs["traceback"]
        assert any("TALK" in message and "failed" in message for message in mine)
    finally:
        service.close()
