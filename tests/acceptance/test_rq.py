"""RQ and its tools see the same jobs, in RQ's own keys, as JSON."""

import contextlib
import json
import math
import subprocess
import sys
import zlib
from datetime import datetime
from pathlib import Path
from typing import Any

from rq import Queue
from rq.job import Job, JobStatus
from rq.registry import BaseRegistry
from rq.serializers import JSONSerializer

from tests.support.launcher import ROOT, RQ
from tests.support.service import Service, eventually


def queue(service: Service) -> Queue:
    return Queue("jobsvc.default", connection=service.redis(), serializer=JSONSerializer)


def fetch(service: Service, job_id: str) -> Job:
    return Job.fetch(job_id, connection=service.redis(), serializer=JSONSerializer)


def seconds_between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def is_in(registry: BaseRegistry, job_id: str) -> bool:
    return job_id in registry.get_job_ids()


def test_retries_wait_in_the_scheduled_registry_with_rqs_own_retry(stack: Service) -> None:
    job_id = stack.post(payload={"failAttempts": 9}, retry={"max": 4, "interval": [3, 50, 60]})
    eventually(lambda: Job.exists(job_id, connection=stack.redis()))
    rq_job = fetch(stack, job_id)
    assert (rq_job.retries_left, rq_job.retry_intervals) in [(4, [3, 50, 60, 60]), (3, [4, 50, 60, 60])]
    stack.until(job_id, "RETRYING")
    eventually(lambda: is_in(queue(stack).scheduled_job_registry, job_id))
    rq_job = fetch(stack, job_id)
    assert rq_job.get_status() == JobStatus.SCHEDULED
    assert rq_job.retries_left == 3
    assert (rq_job.retry_intervals or [])[1:] == [50, 60, 60]
    shown = stack.client.get("/rq/0/data/jobs/jobsvc.default/scheduled/50/asc/1.json").json()
    assert job_id in [job["id"] for job in shown["jobs"]]


def test_retry_of_a_backoff_has_the_drawn_intervals(stack: Service) -> None:
    retry = {"max": 3, "backoff": {"initial": 100, "jitter": 0.5}}
    job_id = stack.post(payload={"failAttempts": 9}, retry=retry)
    waiting = stack.until(job_id, "RETRYING")
    drawn = waiting["retryIntervals"]
    assert [50 <= seconds / 2**number <= 150 for number, seconds in enumerate(drawn)] == [True] * 3
    [attempt] = stack.attempts(job_id)
    assert abs(seconds_between(attempt["finishedAt"], waiting["nextAttemptAt"]) - drawn[0]) < 0.01
    eventually(lambda: is_in(queue(stack).scheduled_job_registry, job_id))
    rq_job = fetch(stack, job_id)
    assert rq_job.retries_left == 2
    assert (rq_job.retry_intervals or [])[1:] == [math.ceil(seconds) for seconds in drawn[1:]]


def test_a_delayed_job_waits_in_the_scheduled_registry(stack: Service) -> None:
    job_id = stack.post(delay=3600)
    eventually(lambda: is_in(queue(stack).scheduled_job_registry, job_id))


def test_success_and_failure_are_in_their_registries(stack: Service) -> None:
    done = stack.post(payload={"result": {"a": 1}})
    failed = stack.post(payload={"failAttempts": 1}, retry={"max": 0})
    discarded = stack.post("DISCARD")
    eventually(lambda: is_in(queue(stack).finished_job_registry, done))
    eventually(lambda: is_in(queue(stack).failed_job_registry, failed))
    eventually(lambda: is_in(queue(stack).failed_job_registry, discarded))
    assert fetch(stack, done).return_value() == {"a": 1}
    result = fetch(stack, failed).latest_result()
    assert result is not None
    assert "RuntimeError: attempt 1 fails, as asked" in (result.exc_string or "")


def test_redis_holds_no_pickle(stack: Service) -> None:
    """A snoozed, a retried and a finished job leave only JSON behind."""
    for job_id in (
        stack.post("SNOOZE", {"times": 1, "seconds": 0.1}),
        stack.post(payload={"failAttempts": 1}, retry={"max": 1, "interval": 0}),
    ):
        stack.until(job_id, "COMPLETED")
        data = stack.redis().hget(f"rq:job:{job_id}", "data")
        assert data is not None
        with contextlib.suppress(zlib.error):  # RQ compresses it when it saves the job, jobsvc doesn't
            data = zlib.decompress(data)  # type: ignore[arg-type]
        function, _, arguments, _ = json.loads(data)  # type: ignore[arg-type]
        assert (function, arguments) == ("jobsvc.execution.run", [job_id])


def test_second_rq_entry_of_a_job_runs_nothing(stack: Service, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    job_id = stack.post("NOTE", {"path": str(notes), "seconds": 0.5})
    stack.until(job_id, "PROCESSING")
    for _ in range(3):
        stack.redis().rpush("rq:queue:jobsvc.default", job_id)
    stack.until(job_id, "COMPLETED")
    after = stack.post()  # behind the entries, so they were taken when this has run
    stack.until(after, "COMPLETED")
    assert len(notes.read_text().splitlines()) == 1
    assert stack.job(job_id)["attempts"] == 1


def test_requeue_in_the_dashboard_is_a_retry(stack: Service) -> None:
    job_id = stack.post("DISCARD")
    eventually(lambda: is_in(queue(stack).failed_job_registry, job_id))
    assert stack.client.post(f"/rq/job/{job_id}/requeue").status_code == 200
    eventually(lambda: (job := stack.job(job_id))["status"] == "FAILED" and job["attempts"] == 2)


def test_unreadable_job_fails_and_stops_no_worker(stack: Service) -> None:
    """It comes from a program that uses RQ's default serializer, pickle."""
    pickled = Queue("jobsvc.default", connection=stack.redis()).enqueue(print, "hello")
    eventually(lambda: is_in(queue(stack).failed_job_registry, pickled.id))
    stack.until(stack.post(), "COMPLETED")
    assert len(stack.client.get("/workers").json()["workers"]) == 1


def test_rq_info_shows_queues_and_workers(stack: Service) -> None:
    shown: Any = subprocess.run(
        [RQ, "info", "-c", "jobsvc.rqsettings"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert " workers, " in shown
    assert "0 workers" not in shown
    assert "default" in shown


def test_worker_loads_no_http_code() -> None:
    code = (
        "import sys; import jobsvc.worker, jobsvc.rqsettings, jobsvc.dispatch.relay;"
        "print([m for m in ('flask', 'werkzeug', 'granian', 'jobsvc.api') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
