"""The life of a job, seen by HTTP alone, under our worker and under a stock one."""

import re
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.support.service import Service

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def seconds(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def test_documented_curl_commands_work(stack: Service) -> None:
    reply = stack.client.post("/jobs", content="{}", headers={"Content-Type": "application/json"})
    assert reply.status_code == 202
    assert list(reply.json()) == ["jobId"]
    job_id = reply.json()["jobId"]
    assert reply.headers["Location"] == f"/jobs/{job_id}"
    job = stack.until(job_id, "COMPLETED")
    assert list(job)[:5] == ["id", "type", "payload", "status", "createdAt"]
    assert job["id"] == job_id
    assert (job["type"], job["payload"], job["attempts"], job["maxAttempts"]) == ("TEST_JOB", {}, 1, 4)
    for name in ("createdAt", "startedAt", "finishedAt"):
        assert TIME.fullmatch(job[name])
    assert job["createdAt"] <= job["startedAt"] <= job["finishedAt"]
    assert job_id[14] == "7"


def test_job_is_pending_then_processing_then_completed(stack: Service) -> None:
    first = stack.post(payload={"durationMs": 700})
    second = stack.post(payload={"durationMs": 10, "result": {"b": [1, None], "a": "ü"}})
    assert stack.job(second)["status"] == "PENDING"
    running = stack.until(first, "PROCESSING")
    assert running["finishedAt"] is None
    assert stack.attempts(first)[0]["outcome"] is None
    assert stack.until(second, "COMPLETED")["result"] == {"b": [1, None], "a": "ü"}
    [attempt] = stack.attempts(second)
    assert (attempt["number"], attempt["outcome"], attempt["error"]) == (1, "completed", None)
    assert attempt["worker"]


def test_failed_attempts_are_retried_at_the_given_intervals(stack: Service) -> None:
    job_id = stack.post(payload={"failAttempts": 2}, retry={"max": 3, "interval": [1, 1.5, 60]})
    waiting = stack.until(job_id, "RETRYING")
    assert waiting["retryIntervals"] == [1, 1.5, 60]
    assert waiting["nextAttemptAt"] > waiting["startedAt"]
    assert waiting["error"] == {"type": "RuntimeError", "message": "attempt 1 fails, as asked", "attempt": 1}
    job = stack.until(job_id, "COMPLETED")
    assert (job["attempts"], job["maxAttempts"], job["nextAttemptAt"]) == (3, 4, None)
    attempts = stack.attempts(job_id)
    assert [attempt["outcome"] for attempt in attempts] == ["failed", "failed", "completed"]
    assert [attempt["number"] for attempt in attempts] == [1, 2, 3]
    gaps = [seconds(one["finishedAt"], next_one["startedAt"]) for one, next_one in pairwise(attempts)]
    assert 1 <= gaps[0] < 4
    assert 1.5 <= gaps[1] < 4.5


def test_backoff_is_drawn_for_each_job_and_kept_at_a_retry_by_hand(stack: Service) -> None:
    ids = [stack.post("BACKOFF", {"fails": 1}) for _ in range(2)]
    first, second = (stack.until(job_id, "COMPLETED") for job_id in ids)
    assert first["retryIntervals"] != second["retryIntervals"]
    assert [0.9 <= one / (0.5 * 3**n) <= 1.1 for n, one in enumerate(first["retryIntervals"])] == [True] * 4
    failed, retried = stack.attempts(ids[0])
    gap = seconds(failed["finishedAt"], retried["startedAt"])
    assert first["retryIntervals"][0] - 0.01 <= gap < first["retryIntervals"][0] + 3

    job_id = stack.post("BACKOFF", delay=3600, retry={"max": 2})
    drawn = stack.job(job_id)["retryIntervals"]
    assert len(drawn) == 2
    stack.client.post(f"/jobs/{job_id}/cancel")
    again = stack.client.post(f"/jobs/{job_id}/retry").json()
    assert (again["retryIntervals"], again["maxAttempts"]) == (drawn, 3)
    fixed = stack.post("BACKOFF", delay=3600, retry={"interval": 7})
    assert stack.job(fixed)["retryIntervals"] == [7, 7, 7, 7]


def test_job_that_always_fails_records_every_attempt(stack: Service) -> None:
    job_id = stack.post(payload={"failAttempts": 99}, retry={"max": 2, "interval": 0.1})
    job = stack.until(job_id, "FAILED")
    assert job["attempts"] == job["maxAttempts"] == 3
    assert job["finishedAt"]
    assert job["error"]["attempt"] == 3
    attempts = stack.attempts(job_id)
    assert [attempt["outcome"] for attempt in attempts] == ["failed"] * 3
    error = attempts[1]["error"]
    assert (error["type"], error["message"]) == ("RuntimeError", "attempt 2 fails, as asked")
    assert "test_job.py" in error["traceback"]
    assert "attempt.py" not in error["traceback"]


def test_retry_max_0_means_no_retry(stack: Service) -> None:
    job = stack.until(stack.post(payload={"failAttempts": 1}, retry={"max": 0}), "FAILED")
    assert (job["attempts"], job["retryIntervals"]) == (1, [])


def test_delayed_job_does_not_start_early(stack: Service) -> None:
    job_id = stack.post(delay=1.2)
    job = stack.job(job_id)
    assert job["status"] == "SCHEDULED"
    assert job["nextAttemptAt"] == job["runAt"]
    assert seconds(job["createdAt"], job["runAt"]) == pytest.approx(1.2, abs=0.01)
    done = stack.until(job_id, "COMPLETED")
    assert 0 <= seconds(done["runAt"], done["startedAt"]) < 3


def test_run_at_in_the_past_starts_at_once(stack: Service) -> None:
    job_id = stack.post(runAt="2020-02-29T12:00:00.123+01:00")
    done = stack.until(job_id, "COMPLETED")
    assert done["runAt"] == "2020-02-29T11:00:00.123Z"


def test_handler_is_stopped_at_its_timeout(stack: Service) -> None:
    job_id = stack.post(payload={"durationMs": 60_000}, timeout=0.3, retry={"max": 1, "interval": 0})
    job = stack.until(job_id, "FAILED")
    assert job["error"] == {"type": "Timeout", "message": "the attempt took longer than its 0.3 s", "attempt": 2}
    attempts = stack.attempts(job_id)
    assert [attempt["outcome"] for attempt in attempts] == ["timeout", "timeout"]
    assert 0.3 <= seconds(attempts[0]["startedAt"], attempts[0]["finishedAt"]) < 2


def test_handler_that_swallows_exceptions_is_stopped_at_its_timeout(stack: Service) -> None:
    job_id = stack.post("STUBBORN", timeout=0.3, retry={"max": 0})
    # Soon, so not by the end of its process, which comes 10 s later.
    assert stack.until(job_id, "FAILED", timeout=6)["error"]["type"] == "Timeout"


def test_handler_that_cannot_be_interrupted_is_killed_with_its_process(stack: Service) -> None:
    job_id = stack.post("BLOCK_SIGNALS", timeout=0.3, retry={"max": 0})
    assert stack.until(job_id, "FAILED", timeout=30)["error"]["type"] == "Timeout"
    [attempt] = stack.attempts(job_id)
    assert [line["message"] for line in attempt["logs"]] == ["blocks all signals from now on"]
    assert stack.until(stack.post(), "COMPLETED", timeout=30)


def test_lease_is_renewed_under_a_handler_that_never_waits(stack: Service) -> None:
    job_id = stack.post("COMPUTE", {"seconds": 5})  # the stack's leases last 3 s
    job = stack.until(job_id, "COMPLETED")
    assert job["attempts"] == 1


def test_job_whose_process_dies_is_retried(stack: Service) -> None:
    job_id = stack.post("CRASH", retry={"max": 1, "interval": 0.2})
    job = stack.until(job_id, "COMPLETED")
    assert job["result"] == "survived"
    assert job["error"]["type"] == "WorkerLost"
    assert [attempt["outcome"] for attempt in stack.attempts(job_id)] == ["lost", "completed"]


def test_discard_fails_without_retry(stack: Service) -> None:
    job_id = stack.post("DISCARD")
    job = stack.until(job_id, "FAILED")
    assert (job["attempts"], job["error"]["message"]) == (1, "not worth another try")
    assert [attempt["outcome"] for attempt in stack.attempts(job_id)] == ["discarded"]


def test_snoozed_job_runs_again_and_counts_no_attempt(stack: Service) -> None:
    job_id = stack.post("SNOOZE", {"times": 2, "seconds": 0.4}, retry={"max": 0})
    snoozed = stack.until(job_id, "SCHEDULED")
    assert snoozed["attempts"] == 0
    job = stack.until(job_id, "COMPLETED")
    assert (job["attempts"], job["result"]) == (1, "awake")
    attempts = stack.attempts(job_id)
    assert [attempt["outcome"] for attempt in attempts] == ["snoozed", "snoozed", "completed"]
    assert [attempt["number"] for attempt in attempts] == [1, 1, 1]


def test_handler_says_when_its_failed_attempt_is_retried(stack: Service) -> None:
    waits = stack.until(stack.post("RETRY_AFTER", {"seconds": 3600}, retry={"max": 1, "interval": 0}), "RETRYING")
    wait = datetime.fromisoformat(waits["nextAttemptAt"]) - datetime.fromisoformat(waits["startedAt"])
    assert 3600 <= wait.total_seconds() < 3660
    assert (waits["attempts"], waits["error"]) == (
        1,
        {"type": "RetryAfter", "message": "again in 3600 s", "attempt": 1},
    )
    again = stack.post("RETRY_AFTER", {"seconds": 0}, retry={"max": 1, "interval": 3600})
    job = stack.until(again, "COMPLETED")
    assert (job["attempts"], job["result"]) == (2, "served")
    assert stack.until(stack.post("RETRY_AFTER", {"seconds": 0}, retry={"max": 0}), "FAILED")["attempts"] == 1


def test_progress_is_shown(stack: Service) -> None:
    job_id = stack.post(payload={"durationMs": 1200, "steps": 4})
    seen = stack.until(job_id, "PROCESSING")
    while seen["progress"] is None and seen["status"] == "PROCESSING":
        seen = stack.job(job_id)
    assert seen["status"] == "PROCESSING"
    assert list(seen["progress"]) == ["percent", "message"]
    assert seen["progress"]["percent"] >= 25
    assert stack.until(job_id, "COMPLETED")["progress"] == {"percent": 100, "message": "step 4 of 4"}


def test_job_not_started_in_time_expires(stack: Service) -> None:
    blocker = stack.post(payload={"durationMs": 1500})
    late = stack.post(expiresIn=0.2)
    job = stack.until(late, "FAILED")
    assert job["error"] == {"type": "Expired", "message": "not started before it expired", "attempt": 0}
    assert (job["attempts"], stack.attempts(late)) == (0, [])
    assert seconds(job["createdAt"], job["expiresAt"]) == pytest.approx(0.2, abs=0.01)
    stack.until(blocker, "COMPLETED")


def test_job_started_in_time_may_finish_after_its_expiry(stack: Service) -> None:
    stack.until(stack.post(), "COMPLETED")
    job = stack.until(stack.post(payload={"durationMs": 800}, expiresIn=0.6), "COMPLETED", "FAILED")
    assert job["status"] == "COMPLETED"


def test_handler_defaults_apply(stack: Service) -> None:
    job = stack.until(stack.post("SUM", {"numbers": [1, 2, 3]}), "COMPLETED")
    assert job["result"] == 6
    assert (job["queue"], job["timeout"], job["retryIntervals"]) == ("high", 9, [2])


def test_queues_are_served_in_the_configured_order(stack: Service, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    blocker = stack.post(payload={"durationMs": 800})
    stack.until(blocker, "PROCESSING")
    ids = {name: stack.post("NOTE", {"path": str(notes)}, queue=name) for name in ("low", "default", "high")}
    for job_id in ids.values():
        stack.until(job_id, "COMPLETED")
    order = [line.split()[0] for line in notes.read_text().splitlines()]
    assert order == [ids["high"], ids["default"], ids["low"]]


@pytest.mark.parametrize("what", ["set", "nan", "nul", "surrogate"])
def test_result_that_is_not_json_fails_the_attempt(stack: Service, what: str) -> None:
    job = stack.until(stack.post("RETURN", {"what": what}, retry={"max": 0}), "FAILED")
    assert job["error"]["type"] == "UnserializableResult"


def test_context_has_the_values_of_the_attempt(stack: Service) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = {"type": "RETURN", "payload": {"what": "context"}, "retry": {"max": 6}}
    job_id = stack.client.post("/jobs", json=body, headers={"traceparent": trace}).json()["jobId"]
    assert stack.until(job_id, "COMPLETED")["result"] == [job_id, 1, 7, 1, trace, False]


def test_tuple_result_becomes_a_json_array(stack: Service) -> None:
    assert stack.until(stack.post("RETURN", {"what": "tuple"}), "COMPLETED")["result"] == [1, 2]


def test_any_exception_fails_the_attempt(stack: Service) -> None:
    job_id = stack.post("INTERRUPT", retry={"max": 0})
    assert stack.until(job_id, "FAILED")["error"]["type"] == "KeyboardInterrupt"
    assert stack.attempts(job_id)[0]["outcome"] == "failed"


def test_progress_is_clamped_and_cleaned(stack: Service) -> None:
    job_id = stack.post("ODD_PROGRESS")
    job = stack.until(job_id, "FAILED")
    assert job["progress"] == {"percent": 50, "message": "{'not': 'text'}"}
    assert [attempt["outcome"] for attempt in stack.attempts(job_id)] == ["snoozed", "discarded"]


def test_error_texts_are_cleaned_and_cut(stack: Service) -> None:
    job_id = stack.post("RAISE", retry={"max": 0})
    message = stack.until(job_id, "FAILED")["error"]["message"]
    assert message.startswith("a\ufffdb\ufffdxxx")
    assert len(message) == 4096


def test_attempt_counts_equal_the_recorded_attempts(stack: Service) -> None:
    stack.until(stack.post(payload={"failAttempts": 1}, retry={"max": 1, "interval": 0}), "COMPLETED")
    from sqlalchemy import text

    from jobsvc.db.engine import transaction

    with transaction() as connection:
        odd: Any = connection.execute(
            text(
                "SELECT id, status, attempts, n FROM jobs,"
                " LATERAL (SELECT count(*) FILTER (WHERE outcome NOT IN ('snoozed', 'completed')) n"
                " FROM attempts WHERE job_id = id) a"
                " WHERE attempts <> n + (status IN ('PROCESSING', 'COMPLETED'))::int OR attempts > max_attempts"
            )
        ).all()
    assert odd == []
