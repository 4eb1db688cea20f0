"""The documents and the examples agree with the code."""

import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobsvc.config import Settings
from tests.support.servers import ROOT
from tests.support.service import STOCK, Service

README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service({"JOBSVC_HANDLERS": "examples.checksum", "JOBSVC_QUEUES": "docs,low"})
    service.worker()
    yield service
    service.close()


def checksum(service: Service, path: str) -> str:
    """Post the example's job to a queue that no other service of these tests serves: they don't know its type."""
    return service.post("CHECKSUM", {"path": path}, queue="docs")


def old_file(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    os.utime(path, (time.time() - 60,) * 2)
    return str(path)


def test_example_handler_completes(service: Service, tmp_path: Path) -> None:
    content = b"x" * 3_000_000
    job_id = checksum(service, old_file(tmp_path / "file", content))
    job = service.until(job_id, "COMPLETED")
    assert job["result"] == {"sha256": hashlib.sha256(content).hexdigest()}
    assert job["progress"] == {"percent": 100, "message": "3000000 of 3000000 bytes"}
    assert job["maxAttempts"] == 6
    assert service.job(service.post("CHECKSUM", {"path": "x"}, delay=3600))["queue"] == "low"


def test_example_handler_discards_and_snoozes(service: Service, tmp_path: Path) -> None:
    missing = checksum(service, str(tmp_path / "nothing"))
    assert "is no file" in service.until(missing, "FAILED")["error"]["message"]
    fresh = tmp_path / "fresh"
    fresh.write_bytes(b"")
    job_id = checksum(service, str(fresh))
    service.until(job_id, "SCHEDULED")
    service.until(job_id, "COMPLETED")
    assert service.attempts(job_id)[0]["outcome"] == "snoozed"


def test_documented_stock_worker_command_is_the_tested_one() -> None:
    assert " ".join(["rq", *STOCK[1:]]) in README


def test_all_settings_are_documented_and_no_others() -> None:
    reported = set(re.findall(r"`([A-Z][A-Z_]{3,})`", README.partition("## Settings")[2].partition("**Access.**")[0]))
    assert reported == set(Settings.model_fields)


def test_every_route_has_a_curl_example(service: Service) -> None:
    lines = [line for line in README.splitlines() if "curl " in line or "/docs>" in line]
    reported = [
        ((re.search("-X ([A-Z]+)", line) or ["", "GET"])[1], found[1])
        for line in lines
        for found in re.finditer(r"http://localhost:3000(/[^\s`\"'?>]*)", line)
    ]
    for path, operations in service.client.get("/openapi.json").json()["paths"].items():
        pattern = re.compile(re.sub("{.*?}", "[^/]+", path))
        asked = {method.lower() for method, url in reported if pattern.fullmatch(url)}
        assert set(operations) <= asked, path


def test_documented_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in set(re.findall(r"`make ([a-z-]+)`", README)):
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name


def test_documented_handler_can_be_registered() -> None:
    from jobsvc.handlers import registry

    source = README.partition("## A handler of your own")[2].partition("```python\n")[2].partition("```")[0]
    before = dict(registry._handlers)
    try:
        exec(source, {"__name__": "work"})
        assert registry._handlers["THUMBNAIL"].queue == "low"
    finally:
        registry._handlers.clear()
        registry._handlers.update(before)
