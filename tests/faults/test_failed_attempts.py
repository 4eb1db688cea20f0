"""Attempts that fail in odd ways, from outside: their outcome is the real one, and nothing of them stays in memory.

The classes and their members are listed in tests/unit/execution/test_attempt_outcomes.py; here are those that need real
processes: one thread, several threads in one process, and RQ's own worker. Beyond: memory that runs out, what a deploy
does to handlers whose clean-up raises, and 100 failures of 20 MB each in one process.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.handlers.exceptions import MEGABYTES
from tests.support.service import Process, Service, eventually

TOLERANCE = 40
"""Megabytes that the process of the handlers may have grown by; one of the failures holds 20."""

KINDS = {"pool": {}, "threads": {"JOBSVC_CONCURRENCY": "3"}, "stock": {}}


class Site:
    """A service with one worker of a kind."""

    def __init__(self, env: dict[str, str], kind: str) -> None:
        self.kind = kind
        self.service = Service(
            {**env, "JOBSVC_HANDLERS": "tests.support.handlers.exceptions", "JOBSVC_SHUTDOWN_SECONDS": "1"}
        )
        self.worker = self.start()

    def start(self) -> Process:
        return self.service.worker("stock" if self.kind == "stock" else "pool", **KINDS[self.kind])

    def end_of(self, job_id: str) -> tuple[str, str | None]:
        """Return outcome and error type of the job's only attempt."""
        self.service.until(job_id, "COMPLETED", "FAILED", "CANCELLED", timeout=40)
        [attempt] = self.service.attempts(job_id)
        return attempt["outcome"], attempt["error"] and attempt["error"]["type"]


@pytest.fixture(scope="module", params=KINDS)
def site(request: pytest.FixtureRequest, apart: dict[str, str]) -> Iterator[Site]:
    site = Site(apart, request.param)
    yield site
    site.service.close()


def test_unusual_exception_fails_the_attempt_with_its_type(site: Site) -> None:
    expected = {
        "getattr": "ApiError",
        "text": "BadText",
        "huge": "H" * 199 + "…",
        "nested": "ExceptionGroup",
        "exit": "SystemExit",
        "generator": "GeneratorExit",
        "interrupt": "KeyboardInterrupt",
        "unstorable": "Ünïcode",
    }
    posted = {what: site.service.post("ODD_EXCEPTION", {"what": what}) for what in expected}
    for what, type_ in expected.items():
        assert site.end_of(posted[what]) == ("failed", type_), what
    [attempt] = site.service.attempts(posted["getattr"])
    assert attempt["error"]["message"] == "of an API"
    assert "handlers/exceptions.py" in attempt["error"]["traceback"]
    shown = eventually(lambda: site.service.rq_job(posted["getattr"]).latest_result())
    assert "ApiError: of an API" in (shown.exc_string or "")
    shown = eventually(lambda: site.service.rq_job(posted["huge"]).latest_result())
    assert len(shown.exc_string or "") < 100_000


def test_slow_exception_message_is_read_once_and_abandoned(site: Site, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    began = time.monotonic()
    job_id = site.service.post("SLOW_TEXT", {"path": str(calls), "seconds": 60})
    assert site.end_of(job_id) == ("failed", "SlowText")
    assert time.monotonic() - began < 12
    assert calls.read_text() == "x"


def test_memory_error_fails_the_attempt(site: Site) -> None:
    assert site.end_of(site.service.post("OUT_OF_MEMORY")) == ("failed", "MemoryError")


def test_result_with_duplicate_keys_fails_the_attempt(site: Site) -> None:
    assert site.end_of(site.service.post("EQUAL_KEYS")) == ("failed", "UnserializableResult")


@pytest.mark.parametrize("how", ["group", "finally", "cause"])
def test_wrapped_discard_and_snooze_are_honoured(site: Site, how: str) -> None:
    discarded = site.service.post("WRAPPED", {"what": "discard", "how": how})
    snoozed = site.service.post("WRAPPED", {"what": "snooze", "how": how})
    assert site.end_of(discarded) == ("discarded", "Discard")
    job = site.service.until(snoozed, "COMPLETED", "FAILED")
    assert (job["status"], job["attempts"]) == ("COMPLETED", 1)


HOW = ["finally", "none", "group", "asyncio", "discard"]


def test_timeout_wins_over_any_exception(site: Site, tmp_path: Path) -> None:
    posted = [site.service.post("INTERRUPTED", {"how": how, "path": str(tmp_path / how)}, timeout=0.5) for how in HOW]
    for job_id in posted:
        assert site.end_of(job_id) == ("timeout", "Timeout")


def test_cancel_wins_over_any_exception(site: Site, tmp_path: Path) -> None:
    for how in ("finally", "asyncio"):
        job_id = site.service.post("INTERRUPTED", {"how": how, "path": str(tmp_path / how)})
        eventually((tmp_path / how).exists)
        assert site.service.client.post(f"/jobs/{job_id}/cancel").status_code == 202
        assert site.end_of(job_id) == ("cancelled", None)


HOLDS = ["plain", "chain", "group", "discard", "cycle", "pool", "logged", "asyncio", "plain", "cycle"]


@pytest.mark.parametrize("site", ["pool", "threads"], indirect=True, scope="module")  # stock: a process for each job
def test_memory_of_failed_attempts_is_freed(site: Site) -> None:
    site.service.until(site.service.post("HOLD", {"how": "plain"}), "FAILED")
    process = psutil.Process(site.service.until(site.service.post("HOLD", {"how": "pid"}), "COMPLETED")["result"])
    before = process.memory_info().rss
    entries: list[dict[str, Any]] = [{"type": "HOLD", "payload": {"how": how}} for how in HOLDS * 10]
    entries += [{"type": "HOLD", "payload": {"how": "timeout"}, "timeout": 0.1} for _ in range(5)]
    reply = site.service.client.post("/jobs/batch", json={"jobs": entries})
    for job_id in reply.json()["jobIds"]:
        site.service.until(job_id, "FAILED", timeout=60)
    assert MEGABYTES * len(entries) > 30 * TOLERANCE
    eventually(lambda: process.memory_info().rss < before + TOLERANCE * 2**20, 10)


@pytest.mark.parametrize("site", ["pool", "threads"], indirect=True, scope="module")  # stock: stops as RQ does
@pytest.mark.parametrize("type_", ["INTERRUPTED", "INTERRUPTED_ISOLATED"])
def test_shutdown_fails_no_job_whose_cleanup_raises(site: Site, type_: str, tmp_path: Path) -> None:
    hows = ["finally", "group", "asyncio"] if site.kind == "threads" else ["finally"]
    posted = [site.service.post(type_, {"how": how, "path": str(tmp_path / how)}) for how in hows]
    for how in hows:
        eventually((tmp_path / how).exists)
    site.worker.signal(signal.SIGTERM)
    assert site.worker.wait(20) == 0
    for job_id in posted:
        assert site.service.job(job_id)["status"] == "PENDING"
        assert [one["outcome"] for one in site.service.attempts(job_id)] == ["handed-back"]
        assert site.service.client.post(f"/jobs/{job_id}/cancel").status_code == 200
    site.worker = site.start()
