"""Async handlers share an event loop; what stops or hurts one of them leaves the others alone, and the worker.

The class: what an async handler can do to its task, to the loop, and to the process in which it runs.

- How it ends: returns, raises, an exception in a group, CancelledError by itself, SystemExit in a task.
- What interrupts it: timeout, cancel, shutdown. It cleans up, swallows it, returns late, or blocks the loop.
- What it leaves: tasks that end, do not end or spin; threads, generators, settings of the loop, a stopped loop.
- What it forks: a process that returns, raises, or lets its copy of the loop go on.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import empty
from tests.support.service import Service, eventually

ENV = {"JOBSVC_HANDLERS": "tests.support.handlers.asynchronous,tests.support.handlers.basic"}
KINDS = {"one": ("pool", {}), "shared": ("pool", {"JOBSVC_CONCURRENCY": "40"}), "stock": ("stock", {})}
ONCE = {"retry": {"max": 0}}


class Site:
    """A service with one worker of this kind."""

    def __init__(self, kind: str) -> None:
        empty()
        self.kind = kind
        self.service = Service(ENV)
        worker, env = KINDS[kind]
        self.worker = self.service.worker(worker, **env)

    def run(self, type_: str, payload: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        job_id = self.service.post(type_, payload, **{**ONCE, **options})
        return self.service.until(job_id, "COMPLETED", "FAILED", "SCHEDULED", "RETRYING", "CANCELLED", timeout=30)

    def result(self, type_: str, payload: dict[str, Any] | None = None) -> Any:
        job = self.run(type_, payload)
        assert job["status"] == "COMPLETED", job["error"]
        return job["result"]

    def outcomes(self, job_id: str) -> list[str]:
        return [attempt["outcome"] for attempt in self.service.attempts(job_id)]


@pytest.fixture(scope="module", params=["one", "shared", "stock"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    site = Site(request.param)
    yield site
    site.service.close()


in_shared = pytest.mark.parametrize("site", ["shared"], indirect=True)
in_pool = pytest.mark.parametrize("site", ["one", "shared"], indirect=True)


@pytest.mark.parametrize("type_", ["ASYNC_SLEEP", "ASYNC_SLEEP_ISOLATED", "ASYNC_OBJECT", "ASYNC_PARTIAL"])
def test_async_handler_completes(site: Site, type_: str) -> None:
    assert site.result(type_, {"seconds": 0.05})


def test_invalid_payload_fails_the_attempt(site: Site) -> None:
    [(job_id,)] = site.service.sql(
        "UPDATE jobs SET payload = '{\"seconds\": []}' WHERE id = %s RETURNING id",
        site.service.post("ASYNC_SLEEP", delay=1),
    )
    assert site.service.until(job_id, "FAILED", "RETRYING")["error"]["type"] == "InvalidPayload"


ENDS = {
    "cancelled": ("FAILED", "CancelledError"),
    "cancels itself": ("FAILED", "CancelledError"),
    "value": ("FAILED", "ValueError"),
    "exit": ("FAILED", "SystemExit"),
    "exit in a task": ("FAILED", "SystemExit"),
    "unserializable": ("FAILED", "UnserializableResult"),
}


@pytest.mark.parametrize("what", ENDS)
def test_exception_fails_the_attempt_alone(site: Site, what: str) -> None:
    job = site.run("ASYNC_RAISE", {"what": what})
    assert (job["status"], job["error"]["type"]) == ENDS[what]
    assert site.outcomes(job["id"]) == ["failed"]
    assert site.result("ASYNC_SLEEP")


GROUPS = {
    "discard in a group": ("FAILED", "discarded"),
    "snooze in a group": ("SCHEDULED", "snoozed"),
    "retry in a group": ("RETRYING", "failed"),
}


@pytest.mark.parametrize("what", GROUPS)
def test_exception_that_controls_retries_counts_in_a_task_group(site: Site, what: str) -> None:
    job = site.run("ASYNC_RAISE", {"what": what}, retry={"max": 3, "interval": 9})
    assert (job["status"], site.outcomes(job["id"])[-1:]) == (GROUPS[what][0], [GROUPS[what][1]])


def test_timeout_reaches_the_handler_as_cancellation(site: Site, tmp_path: Path) -> None:
    job = site.run("ASYNC_CLEANUP", {"path": str(tmp_path / "cleaned")}, timeout=0.5)
    assert (job["status"], job["error"]["type"]) == ("FAILED", "Timeout")
    assert job["error"]["message"] == "the attempt took longer than its 0.5 s"
    assert site.outcomes(job["id"]) == ["timeout"]
    assert (tmp_path / "cleaned").read_text() == "CancelledError False"


def test_cancel_reaches_the_handler_as_cancellation(site: Site, tmp_path: Path) -> None:
    job_id = site.service.post("ASYNC_CLEANUP", {"path": str(tmp_path / "cleaned")}, **ONCE)
    site.service.until(job_id, "PROCESSING")
    eventually(lambda: site.service.rq_places(job_id) == ["running"])
    assert site.service.client.post(f"/jobs/{job_id}/cancel").status_code == 202
    site.service.until(job_id, "CANCELLED", timeout=5)
    assert site.outcomes(job_id) == ["cancelled"]
    assert (tmp_path / "cleaned").read_text() == "CancelledError True"


def test_handler_that_polls_its_context_sees_the_cancel_first(site: Site) -> None:
    job_id = site.service.post("ASYNC_CHECK_CANCEL", **ONCE)
    site.service.until(job_id, "PROCESSING")
    eventually(lambda: site.service.rq_places(job_id) == ["running"])
    site.service.client.post(f"/jobs/{job_id}/cancel")
    site.service.until(job_id, "CANCELLED", timeout=5)
    assert [line["message"] for line in site.service.attempts(job_id)[0]["logs"]] == ["saw it"]


def test_handler_that_returns_after_its_timeout_has_completed(site: Site) -> None:
    job = site.run("ASYNC_RETURN_LATE", timeout=0.5)
    assert (job["status"], job["result"]) == ("COMPLETED", "late")


def test_handler_that_blocked_the_loop_past_its_timeout_has_timed_out(site: Site) -> None:
    job = site.run("ASYNC_BLOCK", {"seconds": 1.5}, timeout=0.5)
    assert (job["status"], job["error"]["type"]) == ("FAILED", "Timeout")


def test_logs_and_progress_belong_to_their_own_attempt(site: Site) -> None:
    count = 5 if site.kind == "shared" else 1
    jobs = {name: site.service.post("ASYNC_REPORT", {"name": name}) for name in "ABCDE"[:count]}
    for name, job_id in jobs.items():
        job = site.service.until(job_id, "COMPLETED", "FAILED", "RETRYING")
        assert (job["result"], job["progress"]) == (name, {"percent": 100.0, "message": name}), job["error"]
        lines = [line["message"] for line in site.service.attempts(job_id)[0]["logs"]]
        kinds = ["task", "subtask", "thread", "context"]
        assert sorted(lines[:20]) == sorted(f"{name} {kind} {number}" for kind in kinds for number in range(5))
        assert all(f"{name} lost" in line for line in lines[20:])


@in_pool
def test_progress_is_shown_while_the_handler_runs(site: Site) -> None:
    job_id = site.service.post("ASYNC_REPORT", {"name": "slow", "pause": 1})
    eventually(lambda: (site.service.job(job_id)["progress"] or {}).get("message") == "slow", 8)
    assert site.service.job(job_id)["status"] == "PROCESSING"
    site.service.until(job_id, "COMPLETED")


def test_sync_handler_may_run_a_loop_of_its_own(site: Site) -> None:
    assert site.result("SYNC_RUN") == "hello"
    assert site.result("ASYNC_PROCESS") == "hello"


HARMLESS = ["task", "threads", "executor", "settings", "generator", "stop", "cancel", "cancel all"]
LEFT = [*HARMLESS, "stubborn task", "busy task"]


@in_pool
@pytest.mark.parametrize("what", LEFT)
def test_what_an_attempt_leaves_affects_no_other(site: Site, what: str, tmp_path: Path) -> None:
    job = site.run("ASYNC_LEAVE", {"what": what, "path": str(tmp_path / "ended")})
    assert (job["status"], job["result"]) == ("COMPLETED", "left"), job["error"]
    assert (tmp_path / "ended").exists() == (what == "task")
    assert site.result("ASYNC_REPORT", {"name": "next"}) == "next"
    assert site.result("TEST_JOB", {"result": 7}) == 7
    late = site.run("ASYNC_SLEEP", {"seconds": 60}, timeout=0.5)
    assert late["error"]["type"] == "Timeout"


@in_shared
def test_leftovers_of_others_go_on(site: Site, tmp_path: Path) -> None:
    other = site.service.post("ASYNC_SLEEP", {"path": str(tmp_path / "go on")}, **ONCE)
    twin = site.service.post("ASYNC_REPORT", {"name": "twin", "pause": 0.5}, **ONCE)
    eventually(lambda: site.service.rq_places(other) == ["running"])
    for what in HARMLESS:
        assert site.result("ASYNC_LEAVE", {"what": what, "path": str(tmp_path / "ended")}) == "left"
    (tmp_path / "go on").touch()
    for job_id in (other, twin):
        site.service.until(job_id, "COMPLETED")
        assert site.outcomes(job_id) == ["completed"]


@in_shared
@pytest.mark.parametrize("what", ["close", "epoll"])
def test_job_runs_in_a_new_process_after_the_loop_was_broken(site: Site, what: str) -> None:
    job = site.run("ASYNC_LEAVE", {"what": what})
    assert job["status"] in ("COMPLETED", "FAILED")
    assert site.result("ASYNC_SLEEP")
    assert site.service.alive(site.worker)


@pytest.mark.parametrize(("out", "by"), [("return", ""), ("return", "c"), ("raise", ""), ("sleep", ""), ("wait", "")])
def test_forked_process_never_runs_the_loop_of_its_parent(site: Site, out: str, by: str, tmp_path: Path) -> None:
    others = []
    if site.kind == "shared":
        others = [site.service.post("ASYNC_CLEANUP", {"path": str(tmp_path / f"{one}")}, **ONCE) for one in range(3)]
        eventually(lambda: all(site.service.rq_places(job_id) == ["running"] for job_id in others))
    job = site.run("ASYNC_FORK", {"out": out, "by": by})
    assert job["status"] == "COMPLETED", job["error"]
    assert job["result"] == {"who": "parent", "status": {"return": 0, "raise": 1, "sleep": 1, "wait": 70}[out]}
    assert list(tmp_path.iterdir()) == []
    for job_id in others:
        assert site.service.job(job_id)["status"] == "PROCESSING"
        site.service.client.post(f"/jobs/{job_id}/cancel")
        site.service.until(job_id, "CANCELLED", timeout=6)


@in_pool
def test_isolated_handler_has_a_process_of_its_own(site: Site) -> None:
    shared = {site.result("ASYNC_SLEEP") for _ in range(2)}
    assert len(shared | {site.result("ASYNC_SLEEP_ISOLATED") for _ in range(2)}) == len(shared) + 2
