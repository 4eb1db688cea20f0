"""Odd addresses of pages: each is a problem for curl, a page for a browser, and never a 500."""

from collections.abc import Iterator
from html import unescape
from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.acceptance.console.test_http import HTML, LEAKS
from tests.support.http import basic, refused
from tests.support.service import Service

READ, WRITE = "k-reader-9", "k-writer-9"


@pytest.fixture(scope="module")
def guarded(apart: dict[str, str]) -> Iterator[Service]:
    keys = f"eye:read:{READ},hand:write:{WRITE}"
    service = Service({**apart, "JOBSVC_API_KEYS": keys}, key=WRITE)
    yield service
    service.close()


def is_refused(service: Service, path: str, status: int, **headers: str) -> str:
    """Check the problem and the page for this path; returns the page."""
    problem = refused(service.client.get(path, headers=headers), status)
    page = service.client.get(path, headers={**headers, **HTML})
    assert page.status_code == status
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert problem["title"] in unescape(page.text)
    assert not [leak for leak in LEAKS if leak in page.text]
    return page.text


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=%2B5", "limit"),
        ("cursor=x", "cursor"),
        ("top=x", "top"),
        ("status=LATE", "status"),
        ("createdAfter=yesterday", "createdAfter"),
        ("tag=%00", "tag"),
        ("nope=1", "nope"),
        (f"q={'x' * 2101}", "q"),
        ("payload={a}", "payload"),
        ("payload=[]&tag=", "payload"),
        ("dependsOn=x", "dependsOn"),
    ],
)
def test_wrong_parameter_of_the_list_is_named(api: Service, query: str, parameter: str) -> None:
    page = is_refused(api, f"/ui/jobs?{query}", 422)
    assert parameter in page
    [error] = api.client.get(f"/ui/jobs?{query}").json()["errors"]
    assert error["parameter"] == parameter


@pytest.mark.parametrize("query", ["limit=0", "cursor=x", "status=FAILED"])
def test_wrong_parameter_of_the_deliveries_is_422(api: Service, query: str) -> None:
    is_refused(api, f"/ui/webhooks?{query}", 422)


ODD = ["%00", "%FF", "%ED%A0%80", "%E2%80%A8", "'", "%22%3E%3Cscript%3E", "..%2F..%2Fetc", "x" * 3000, "%25s%7B%7D"]


@pytest.mark.parametrize("text", ODD)
def test_odd_names_are_unknown(api: Service, text: str) -> None:
    for path in ("types", "schedules", "queues", "jobs", "nope", "new?type=", "new?like="):
        page = is_refused(api, f"/ui/{path}{'' if path.endswith('=') else '/'}{text}", 404)
        assert "<script>" not in page


@pytest.mark.parametrize("text", ODD)
def test_odd_text_is_searched_for(api: Service, text: str) -> None:
    reply = api.client.get(f"/ui/jobs?q={text}", headers=HTML)
    assert reply.status_code in (200, 422)
    assert "<script>" not in reply.text


@pytest.mark.parametrize("top", ["0" * 32, "f" * 32, "8869a3cd-e921-42bd-98f0-61b42f4c4396"])
def test_any_id_may_be_the_top_of_a_list(api: Service, top: str) -> None:
    api.post(delay=3600)
    reply = api.client.get(f"/ui/jobs?top={top}&limit=1", headers=HTML)
    assert reply.status_code == 200


@pytest.mark.parametrize("name", ["WEBHOOK", "NOPE"])
def test_type_that_cannot_be_posted_has_no_form(api: Service, name: str) -> None:
    assert name in is_refused(api, f"/ui/new?type={name}", 404)


def test_unknown_job_has_no_page_and_no_copy(api: Service) -> None:
    for path in (f"/ui/jobs/{uuid4()}", f"/ui/new?like={uuid4()}"):
        is_refused(api, path, 404)


@pytest.mark.parametrize(
    ("cron", "timezone", "found"),
    [
        ("0 8 * * 1-5", "Europe/Berlin", "at 08:00 on Monday to Friday"),
        ("@hourly", "", "every hour"),
        ("", "UTC", 'class="error"'),
        ("61 * * * *", "UTC", 'class="error"'),
        ("0 0 30 2 *", "UTC", "never ticks"),
        ("0 8 * * *", "Nowhere/Land", "there is no time zone"),
        ("0 8 * * *", "<script>", "there is no time zone"),
        ("<script>", "UTC", 'class="error"'),
        ("\0", "\0", 'class="error"'),
        ("*" * 9000, "UTC", 'class="error"'),
    ],
)
def test_preview_of_ticks_has_words_or_an_error(api: Service, cron: str, timezone: str, found: str) -> None:
    reply = api.client.get(f"/ui/ticks?{quote('/cron')}={quote(cron)}&{quote('/timezone')}={quote(timezone)}")
    assert reply.status_code == 200
    assert found in reply.text
    assert "<script>" not in reply.text


def test_form_without_the_scope_is_403(guarded: Service) -> None:
    page = is_refused(guarded, "/ui/new", 403, **basic(READ))
    assert "scope write" in page
    assert guarded.client.get("/ui/new", headers=basic(WRITE)).status_code == 200


def test_root_is_read_with_any_key(guarded: Service) -> None:
    for key in (READ, WRITE):
        links = guarded.client.get("/", headers=basic(key)).json()
        assert links["console"] == "/ui/"
        for path in links.values():
            assert guarded.client.get(path, headers=basic(key)).status_code in (200, 403, 503), path
        browser = guarded.client.get("/", headers={**basic(key), **HTML})
        assert (browser.status_code, browser.headers["Location"]) == (302, "/ui/")
        assert browser.headers["Cache-Control"] in ("no-store", "private, no-cache")


def test_root_is_only_read(api: Service) -> None:
    head = api.client.head("/")
    assert (head.status_code, head.content) == (200, b"")
    for method in ("POST", "PUT", "DELETE"):
        reply = api.client.request(method, "/")
        refused(reply, 405)
        assert {"GET", "HEAD"} <= set(reply.headers["Allow"].split(", "))
