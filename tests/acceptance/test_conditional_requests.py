"""If-Match on one job (RFC 9110 §13.1.1): GET, DELETE, cancel, retry and webhook do nothing to another version.

The class: a precondition that a route ignores, or that Werkzeug reads wrongly. Its members: each route of one
job; `*`; lists; weak tags; tags that are no version; headers that are no list of tags; an id without a job; both
If-Match and If-None-Match; and two requests with the same tag at once, of which one may act.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from tests.support.http import refused
from tests.support.service import Service

ACTIONS = [("DELETE", ""), ("POST", "/cancel"), ("POST", "/retry"), ("POST", "/webhook")]
ROUTES = [("GET", ""), *ACTIONS]
NO_MATCH = [
    '"nope"',
    "nope",
    "{bare}",
    "W/{tag}",
    "w/{tag}",
    "W/{tag}, W/{tag}",
    '"0{bare}"',
    '"{bare} "',
    '" {bare}"',
    '"-1"',
    '"99999999999999999999999"',
    "{tag}{tag}",
    "{tag}; x",
    "*, {tag}",
    '"*"',
    "",
    ",",
    '"',
    '"a, {tag}',
]
MATCH = ["{tag}", "*", '"nope", {tag}', "W/{tag},{tag}", ", ,{tag} ,", '"a,b", {tag}']


@pytest.fixture(scope="module")
def service(apart: dict[str, str]) -> Iterator[Service]:
    """An API without a worker: a job changes only when a request changes it."""
    service = Service({**apart, "JOBSVC_WEBHOOK_SECRETS": f"whsec_{'A' * 32}"})
    yield service
    service.close()


def make(service: Service, suffix: str, method: str) -> tuple[str, str]:
    """A job that the action fits, and its ETag."""
    job_id = service.post(delay=3600, webhookUrl="https://example.com/")
    if suffix != "/cancel" and method != "GET":
        assert service.client.post(f"/jobs/{job_id}/cancel").status_code == 200
    return job_id, service.client.get(f"/jobs/{job_id}").headers["ETag"]


def act(service: Service, method: str, path: str, if_match: str, tag: str, **headers: str) -> httpx.Response:
    value = if_match.replace("{tag}", tag).replace("{bare}", tag.strip('"'))
    return service.client.request(method, path, headers={"If-Match": value.encode("latin-1"), **headers})


@pytest.mark.parametrize(("method", "suffix"), ROUTES)
def test_stale_etag_changes_nothing(service: Service, method: str, suffix: str) -> None:
    job_id, tag = make(service, suffix, method)
    before = service.job(job_id)
    for if_match in NO_MATCH:
        refused(act(service, method, f"/jobs/{job_id}{suffix}", if_match, tag), 412)
        assert service.job(job_id) == before, if_match


@pytest.mark.parametrize(("method", "suffix"), ROUTES)
def test_current_etag_is_accepted(service: Service, method: str, suffix: str) -> None:
    for if_match in MATCH if method == "GET" else MATCH[:4]:
        job_id, tag = make(service, suffix, method)
        reply = act(service, method, f"/jobs/{job_id}{suffix}", if_match, tag)
        assert reply.status_code in (200, 202, 204), (if_match, reply.text)


@pytest.mark.parametrize(("method", "suffix"), ROUTES)
@pytest.mark.parametrize("if_match", ["*", '"1"'])
def test_unknown_job_is_404(service: Service, method: str, suffix: str, if_match: str) -> None:
    refused(act(service, method, f"/jobs/{uuid4()}{suffix}", if_match, ""), 404)


def test_stale_etag_is_412_and_not_409(service: Service) -> None:
    job_id, tag = make(service, "/cancel", "POST")
    assert act(service, "POST", f"/jobs/{job_id}/cancel", "{tag}", tag).status_code == 200
    refused(act(service, "POST", f"/jobs/{job_id}/cancel", "{tag}", tag), 412)
    new = service.client.get(f"/jobs/{job_id}").headers["ETag"]
    refused(act(service, "POST", f"/jobs/{job_id}/cancel", "{tag}", new), 409)
    refused(act(service, "POST", f"/jobs/{job_id}/cancel", "*", new), 409)


def test_get_evaluates_if_match_before_if_none_match(service: Service) -> None:
    job_id, tag = make(service, "", "GET")
    path = f"/jobs/{job_id}"
    assert act(service, "GET", path, "*", tag, **{"If-None-Match": tag}).status_code == 304
    assert act(service, "GET", path, "{tag}", tag, **{"If-None-Match": '"nope"'}).status_code == 200
    refused(act(service, "GET", path, '"nope"', tag, **{"If-None-Match": tag}), 412)
    assert act(service, "HEAD", path, '"nope"', tag).status_code == 412


def test_only_one_of_many_requests_with_the_same_etag_acts(service: Service) -> None:
    """Cancel and retry in turn: each changes the version, so one request among those that name a version may act."""
    job_id, _ = make(service, "/cancel", "POST")
    for action in ("cancel", "retry") * 4:
        tag = service.client.get(f"/jobs/{job_id}").headers["ETag"]
        together = threading.Barrier(6)

        def press(action: str = action, tag: str = tag, together: threading.Barrier = together) -> int:
            together.wait(10)
            with httpx.Client(base_url=service.url, timeout=30) as client:
                return client.post(f"/jobs/{job_id}/{action}", headers={"If-Match": tag}).status_code

        with ThreadPoolExecutor(6) as pool:
            statuses = [future.result() for future in [pool.submit(press) for _ in range(6)]]
        assert sorted(statuses) == [200, *[412] * 5]
