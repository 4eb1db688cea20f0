"""The documents and the examples agree with the code."""

import base64
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobsvc.config import Settings
from jobsvc.handlers import registry
from jobsvc.handlers.builtin.webhook import sign
from tests.support.documents import CHECKED, PAGES, Reader, blocks, run_program
from tests.support.launcher import ROOT
from tests.support.service import STOCK, Service

README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
TEXTS = "\n".join(page.read_text() for page in PAGES)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the handlers of the README and of the example."""
    folder = tmp_path_factory.mktemp("handlers")
    [source] = [block.text for block in blocks(ROOT / "README.md") if block.text.startswith("# work.py")]
    (folder / "work.py").write_text(source)
    secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    env = {"JOBSVC_HANDLERS": "examples.checksum,work", "PYTHONPATH": str(folder), "JOBSVC_WEBHOOK_SECRETS": secret}
    service = Service(env)
    service.worker()
    yield service
    service.sql("DROP TABLE IF EXISTS uploads; DROP FUNCTION IF EXISTS make_thumbnail")
    service.close()


@pytest.fixture
def _no_handlers() -> Iterator[None]:
    """Handlers that are registered within the test are removed after it."""
    before = dict(registry._handlers)
    yield
    registry._handlers.clear()
    registry._handlers.update(before)


@pytest.mark.usefixtures("_no_handlers")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_blocks_work_as_shown(service: Service, page: Path) -> None:
    reader = Reader(service)
    for block in blocks(page):
        registry._handlers.pop("THUMBNAIL", None)
        reader.follow(block)


def test_no_code_block_is_left_out() -> None:
    for page in PAGES:
        begun = re.findall(rf"^[ >\t]*(?:```|~~~)+({'|'.join(CHECKED)})\b", page.read_text(), re.MULTILINE)
        assert begun == [block.language for block in blocks(page)], page.name


def checksum(service: Service, path: str) -> str:
    return service.post("CHECKSUM", {"path": path})


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
    assert job["queue"] == "low"


def test_example_handler_discards_and_snoozes(service: Service, tmp_path: Path) -> None:
    missing = checksum(service, str(tmp_path / "nothing"))
    assert service.until(missing, "FAILED")["error"]["type"] == "Discard"
    fresh = tmp_path / "fresh"
    fresh.write_bytes(b"")
    job_id = checksum(service, str(fresh))
    service.until(job_id, "SCHEDULED")
    service.until(job_id, "COMPLETED")
    assert service.attempts(job_id)[0]["outcome"] == "snoozed"


def test_webhook_receiver_accepts_a_signed_message_once(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = Reader(service)
    [block] = [block for block in blocks(ROOT / "docs/webhooks.md") if block.language == "python"]
    reader.follow(block)
    key = secrets.token_bytes(32)
    monkeypatch.setenv("SECRET", f"whsec_{base64.b64encode(key).decode()}")
    body, now = b'{"type": "job.completed", "data": {"id": "7"}}', int(time.time())
    headers = {"webhook-id": "1", "webhook-timestamp": str(now), "webhook-signature": sign([key], "1", now, body)}
    client = reader.names["app"].test_client()
    for _ in range(2):
        assert client.post("/hooks", data=body, headers=headers).status_code == 204
    assert client.post("/hooks", data=body + b" ", headers=headers).status_code == 401
    assert capsys.readouterr().out == "job.completed 7\n"


VERIFY = {
    "js": (
        "\nconst job = await",
        """
for (const { secret, headers, body } of CASES) {
  try { console.log(verifyWebhook(secret, headers, body).type); } catch (error) { console.log(error.message); }
}
""",
    ),
    "go": (
        "func main()",
        """
func main() {
	var cases []struct{ Secret, Body string; Headers map[string]string }
	check(json.Unmarshal([]byte(`CASES`), &cases))
	for _, one := range cases {
		headers := http.Header{}
		for name, value := range one.Headers {
			headers.Set(name, value)
		}
		if err := verifyWebhook(one.Secret, headers, []byte(one.Body)); err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("job.completed")
		}
	}
}
""",
    ),
}
"""For each language: where the page's program begins to send requests, and what is run instead."""


@pytest.mark.parametrize("language", VERIFY)
def test_shown_verification_accepts_only_signed_webhooks(language: str) -> None:
    key, other = secrets.token_bytes(32), secrets.token_bytes(32)
    body, now = b'{"type":"job.completed"}', int(time.time())

    def case(at: int = now, signed: bytes = body, secret: bytes = key) -> dict[str, Any]:
        signature = sign([other, key], "1", at, signed)
        headers = {"webhook-id": "1", "webhook-timestamp": str(at), "webhook-signature": signature}
        return {"secret": f"whsec_{base64.b64encode(secret).decode()}", "headers": headers, "body": body.decode()}

    cases = json.dumps([case(), case(at=now - 400), case(signed=body + b" "), case(secret=b"x" * 32)])
    [block] = [block for block in blocks(ROOT / "docs/clients.md") if block.language == language]
    start, instead = VERIFY[language]
    output = run_program(language, block.text.partition(start)[0] + instead.replace("CASES", cases))
    unsigned = "no signature by this secret"
    assert output is None or output.splitlines() == ["job.completed", "the webhook is too old", unsigned, unsigned]


def test_readme_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 120
    assert len(README.split()) <= 900


def test_documented_stock_worker_command_is_the_tested_one() -> None:
    line = " ".join(["rq", *STOCK[1:]])
    assert line in README
    assert line in OPERATIONS


def test_all_settings_are_documented_and_no_others() -> None:
    documented = re.findall(r"`([A-Z][A-Z_]{3,})`", OPERATIONS.partition("| variable |")[2].partition("\n\n")[0])
    assert set(documented) == set(Settings.model_fields)


def test_every_route_has_a_curl_example(service: Service) -> None:
    shown = [
        ((re.search("-X ([A-Z]+)", line) or ["", "GET"])[1], found[1])
        for line in TEXTS.splitlines()
        if "curl " in line
        for found in re.finditer(r"http://localhost:3000(/[^\s`\"'?>]*)", line)
    ]
    for path, operations in service.client.get("/openapi.json").json()["paths"].items():
        pattern = re.compile(re.sub("{.*?}", "[^/]+", path))
        asked = {method.lower() for method, url in shown if pattern.fullmatch(url)}
        assert set(operations) <= asked, path


def test_documented_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in set(re.findall(r"(?:`|^|[A-Z_]+=\w+ )make ([a-z-]+)", TEXTS, re.MULTILINE)):
        assert re.search(rf"^{name}:", makefile, re.MULTILINE), name
