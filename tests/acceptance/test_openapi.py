"""The OpenAPI document and its page: all of the API, true of it, and from this host alone."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from jobsvc.api.job_types_reply import JobTypesReply
from jobsvc.api.responses import AttemptsReply, JobPage
from jobsvc.jobs.serialize import AttemptShown, ErrorShown, JobShown, LineShown, ProgressShown
from tests.acceptance.test_access import CHALLENGES
from tests.support.browser import chromium
from tests.support.http import basic, bearer, refused
from tests.support.launcher import ROOT
from tests.support.service import Service

KEY = "k-admin"
SCHEMATHESIS = (str(Path(sys.executable).parent / "schemathesis"), "--config-file")
CONFIG = "tests/acceptance/schemathesis/schemathesis.toml"


@pytest.fixture(scope="module")
def guarded(apart: dict[str, str]) -> Iterator[Service]:
    """An API with keys and the built-in handlers, and no worker: what is made up here, and paused, is nobody else's."""
    env = {"JOBSVC_API_KEYS": f"boss:admin:{KEY},eye:read:k-read", "JOBSVC_HANDLERS": "", "JOBSVC_HTTP_ALLOW": ""}
    env["JOBSVC_WEBHOOK_SECRETS"] = f"whsec_{'A' * 32}"
    # Schemathesis tries wrong keys by the dozen, and wants 401 for each.
    unthrottled = "from jobsvc.api import clients; clients.MAX_WRONG_KEYS = 10**6"
    service = Service({**env, **apart}, key=KEY, tune=unthrottled)
    yield service
    service.close()


@pytest.fixture(scope="module")
def document(guarded: Service) -> dict[str, Any]:
    return dict(guarded.client.get("/openapi.json").json())


def test_every_route_is_in_the_document(document: dict[str, Any]) -> None:
    script = "from wsgi import app; from jobsvc.api.openapi import path, served; " + (
        "print(*(f'{method} {path(rule)}' for rule, method, _ in served(app)), sep='\\n')"
    )
    lines = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    routes = {tuple(line.split(" ")) for line in lines.splitlines()}
    reported = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert routes == reported
    assert document["openapi"].startswith("3.1.")


def test_every_operation_has_a_summary_and_its_scope(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert operation["summary"], path
            is_open = path in ("/healthz", "/readyz")
            assert bool(operation["security"]) != is_open, path
            scope = re.search("scope `(.*)`", operation["description"])
            assert (scope is None) == is_open
            assert method != "get" or is_open or (scope and scope[1] == "read")


def test_operations_are_grouped_and_posting_a_job_comes_first(document: dict[str, Any]) -> None:
    groups = ["Jobs", "Workflows", "Schedules", "Queues and workers", "Operations"]
    assert [group["name"] for group in document["tags"]] == groups
    assert all(group["description"] for group in document["tags"])
    seen = [tag for item in document["paths"].values() for operation in item.values() for tag in operation["tags"]]
    assert list(dict.fromkeys(seen)) == groups
    assert next(iter(document["paths"])) == "/jobs"
    assert next(iter(document["paths"]["/jobs"])) == "post"


def test_components_have_names_for_people(document: dict[str, Any]) -> None:
    components = document["components"]["schemas"]
    assert not [name for name in components if re.search("(Shown|Reply|JobRequest)$", name)]
    titles = [schema["title"] for schema in components.values()]
    assert len(titles) == len(set(titles))
    assert not [name for name in components if name[-1].isdigit()]
    assert components["TestJob"]["title"] == "Test job"
    assert components["JobIds"]["title"] == "Job ids"
    assert not [name for name, schema in components["Job"]["properties"].items() if "title" in schema]
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


def test_each_type_has_its_payload_in_the_document(document: dict[str, Any]) -> None:
    components = document["components"]["schemas"]
    for holder, prefix in (("NewJob", ""), ("ScheduledJob", "Scheduled")):
        names = [one["$ref"].rpartition("/")[2] for one in components[holder]["anyOf"]]
        assert names == [f"{prefix}HttpRequest", f"{prefix}TestJob"]
        for name in names:
            payload = components[name]["properties"]["payload"]["$ref"].rpartition("/")[2]
            assert payload == f"{name.removeprefix(prefix)}Payload"
            assert components[payload]["properties"]
            assert {"type", "payload", "delay", "retry", "tags"} <= set(components[name]["properties"])
            assert components[name]["additionalProperties"] is False
    assert components["NewSchedule"]["properties"]["job"] == {"$ref": "#/components/schemas/ScheduledJob"}


def test_filters_and_limits_are_described(document: dict[str, Any]) -> None:
    for path, method in (("/jobs", "get"), ("/jobs/retry", "post")):
        parameters = {one["name"]: one for one in document["paths"][path][method]["parameters"]}
        for name in ("payload", "dependsOn", "cursor"):
            assert parameters[name]["description"], name
    for component in ("RateLimitPolicy", "BackoffPolicy"):
        for name, field in document["components"]["schemas"][component]["properties"].items():
            assert field["description"], name


@pytest.mark.parametrize("path", ["/jobs", "/jobs/batch"])
def test_examples_are_accepted(guarded: Service, document: dict[str, Any], path: str) -> None:
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    for example in content["examples"].values():
        reply = guarded.client.post(path, json=example["value"])
        assert reply.status_code == 202, (example, reply.text)


def test_each_error_status_has_an_example(document: dict[str, Any]) -> None:
    for name, response in document["components"]["responses"].items():
        example = response["content"]["application/problem+json"]["example"]
        assert name == f"Error{example['status']}"
        assert {"type", "title", "status", "detail", "instance"} <= set(example)


CLIENT = """
import sys
from generated.api.jobs import create_job, get_job
from generated.client import AuthenticatedClient
from generated.models import TestJob, TestJobPayload

url, key = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=key)
made = create_job.sync(client=client, body=TestJob(payload=TestJobPayload(duration_ms=7), delay=3600.0))
job = get_job.sync(made.job_id, client=client)
print(job.id == made.job_id, job.status.value, job.payload["durationMs"])
"""


def test_a_generated_client_posts_and_gets_a_job(guarded: Service, document: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    options = ("--meta", "none", "--fail-on-warning")
    generated = subprocess.run(
        [
            folder / "openapi-python-client",
            "generate",
            "--path",
            "openapi.json",
            "--output-path",
            "generated",
            *options,
        ],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert generated.returncode == 0, generated.stdout + generated.stderr
    assert "arning" not in generated.stdout + generated.stderr
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, guarded.url, KEY], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["True", "SCHEDULED", "7"], done.stderr


@pytest.mark.parametrize("stack", ["pool"], indirect=True)
def test_responses_match_the_document(stack: Service) -> None:
    done = stack.post(payload={"failAttempts": 1, "steps": 2}, retry={"max": 1, "interval": 0})
    job = stack.until(done, "COMPLETED")
    assert list(job) == list(JobShown.__annotations__)
    assert list(job["error"]) == list(ErrorShown.__annotations__)
    assert list(job["progress"]) == list(ProgressShown.__annotations__)
    talk = stack.post("TALK")
    stack.until(talk, "COMPLETED")
    reply = stack.client.get(f"/jobs/{talk}/attempts").json()
    assert list(reply) == list(AttemptsReply.__annotations__)
    assert list(reply["attempts"][0]) == list(AttemptShown.__annotations__)
    assert list(reply["attempts"][0]["logs"][0]) == list(LineShown.__annotations__)
    assert list(stack.client.get("/jobs").json()) == list(JobPage.__annotations__)
    assert list(stack.client.get("/job-types").json()) == list(JobTypesReply.__annotations__)


@pytest.mark.slow
def test_schemathesis_finds_nothing(guarded: Service) -> None:
    """Every check there is, on what the document allows and on what it doesn't, and along its links."""
    run = ("run", f"{guarded.url}/openapi.json", "-H", f"Authorization: Bearer {KEY}", "--checks", "all")
    done = subprocess.run(
        [*SCHEMATHESIS, CONFIG, *run, "--max-examples", "4", "--no-color"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"[1-9]\d* covered", done.stdout), "no link was followed"


def test_docs_page_loads_local_files_only(guarded: Service) -> None:
    reply = guarded.client.get("/docs")
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="([^"]*)"', reply.text)
    assert len(named) == 4
    for path in named:
        file = guarded.client.get(urljoin("/docs", path))
        assert file.status_code == 200, path
        assert len(file.content) > 100
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    refused(guarded.client.get("/docs/nothing"), 404)
    refused(guarded.client.get("/docs/index.css"), 404)


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/docs/swagger-ui.css", "/metrics"])
def test_docs_page_needs_a_key(guarded: Service, path: str) -> None:
    reply = guarded.client.get(path, headers=bearer("wrong"))
    refused(reply, 401)
    assert reply.headers.get_list("WWW-Authenticate") == CHALLENGES
    for headers in (bearer("k-read"), basic("k-read")):
        assert guarded.client.get(path, headers=headers).status_code == 200


def test_other_sites_cannot_use_the_remembered_password(guarded: Service) -> None:
    refused(guarded.client.post("/jobs", headers={**basic(KEY), "Sec-Fetch-Site": "cross-site"}), 403)
    assert guarded.client.post("/jobs", headers={**basic(KEY), "Sec-Fetch-Site": "same-origin"}).status_code == 202


def test_docs_page_works_in_a_browser(guarded: Service) -> None:
    """It shows the API, posts a job from it, and asks no other host for anything."""
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_context(http_credentials={"username": "anyone", "password": KEY}).new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda with_progress_and_logs: (
                errors.append(with_progress_and_logs.text) if with_progress_and_logs.type == "error" else None
            ),
        )
        page.goto(f"{guarded.url}/docs")
        page.locator("#operations-Jobs-create_job .opblock-summary-control").click()
        page.locator("#operations-Jobs-create_job button.execute").click()
        reply = page.locator("#operations-Jobs-create_job .live-responses-table tbody .response-col_status").first
        reply.filter(has_text="202").wait_for()
        shown = page.locator(".opblock").count()
        browser.close()
    assert shown >= 15
    assert errors == []
    assert {url.partition("/")[0] for url in asked} <= {"http:", "data:", "blob:"}
    assert all(url.startswith(guarded.url) for url in asked if url.startswith("http"))
