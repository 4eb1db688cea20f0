"""Links of the console's pages, and commands that a shell takes as they are."""

import json
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from flask import Flask

from jobsvc.config import settings
from jobsvc.ui import links

HOSTILE = [
    "a b",
    "a/b",
    "a%2Fb",
    "?x=1&y",
    "#top",
    "é\u2028",
    "'; rm -rf ~; '",
    '"$(id)"`id`',
    "<script>",
    "a\nb",
    "\\",
]


@contextmanager
def page(path: str = "/ui/jobs", prefix: str = "", **options: Any) -> Iterator[None]:
    """A request for a page, behind a proxy's path prefix."""
    with Flask("console").test_request_context(path, environ_overrides={"SCRIPT_NAME": prefix}, **options):
        yield


@pytest.fixture
def _with_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = settings().model_copy(update={"JOBSVC_API_KEYS": {"a": "b"}})
    monkeypatch.setattr(links, "settings", lambda: changed)


def words(command: str) -> list[str]:
    """The words that a shell makes of a command."""
    script = f'curl() {{ for word in curl "$@"; do printf \'%s\\0\' "$word"; done; }}; {command}'
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True, env={"KEY": "k 'e' y"})
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize(
    ("prefix", "shown"), [("", ""), ("/in/front", "/in/front"), ("/a%20b", "/a%20b"), ("/a b", "/a%20b")]
)
def test_links_have_the_prefix_of_a_proxy(prefix: str, shown: str) -> None:
    with page("/ui/types/a%252Fb?tag=x", prefix):
        assert links.api("/jobs") == f"{shown}/jobs"
        assert links.here(links.given()) == f"{shown}/ui/types/a%252Fb?tag=x"
        assert links.curl("/jobs").startswith(f"curl http://localhost{shown}/jobs")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_and_values_come_back_from_a_link(name: str) -> None:
    with page():
        parts = urlsplit(links.api(f"/schedules/{name}", (("tag", name), ("tag", "b"), (name, 1))))
    assert unquote(parts.path) == f"/schedules/{name}"
    assert parse_qsl(parts.query, strict_parsing=True) == [("tag", name), ("tag", "b"), (name, "1")]
    assert parts.fragment == ""
    assert not {" ", "'", '"', "<", "\n"} & set(parts.path + parts.query)


def test_repeated_parameters_are_kept() -> None:
    with page("/ui/jobs?tag=b&tag=a&status=FAILED&status=&cursor=c&top=t"):
        assert links.given()[:3] == [("tag", "b"), ("tag", "a"), ("status", "FAILED")]
        assert links.with_query() == "/ui/jobs?tag=b&tag=a&status=FAILED"
        assert links.with_query(status=None) == "/ui/jobs?tag=b&tag=a"
        assert links.with_query(tag="c d") == "/ui/jobs?status=FAILED&tag=c%20d"
        assert links.with_query(cursor="n").endswith("&status=FAILED&cursor=n")
        assert links.without("tag", "b") == "/ui/jobs?tag=a&status=FAILED"
        assert links.without("tag", "nope") == links.with_query()


@pytest.mark.parametrize("text", HOSTILE)
def test_shell_reads_the_command_as_meant(text: str) -> None:
    body = {"type": text, "payload": {text: [text, None, 1.5, {"é": True}]}}
    with page():
        command = links.curl(f"/types/{text}", (("error", text),), method="POST", body=body)
        url = f"http://localhost{links.api(f'/types/{text}', (('error', text),))}"
    found = words(command)
    assert found[:-1] == ["curl", "-X", "POST", url, "-H", "Content-Type: application/json", "-d"]
    assert json.loads(found[-1]) == body
    assert words(command) == shlex.split(command)


def test_reading_needs_no_method_and_no_body() -> None:
    with page(base_url="https://jobs.example:8443"):
        assert links.curl("/jobs") == "curl https://jobs.example:8443/jobs"
        assert links.curl("/jobs", method="POST", body={}).endswith("-d '{}'")
        assert links.curl("/jobs/retry", method="POST") == "curl -X POST https://jobs.example:8443/jobs/retry"


@pytest.mark.usefixtures("_with_keys")
def test_key_is_a_variable_of_the_shell() -> None:
    with page():
        assert words(links.curl("/jobs")) == ["curl", "http://localhost/jobs", "-H", "Authorization: Bearer k 'e' y"]
        assert words(links.curl("/jobs", method="POST", body={"a": "$KEY"}))[-1] == '{"a": "$KEY"}'
