"""GET, HEAD and OPTIONS change nothing, and odd arguments of the dashboard are no error of the service.

The class of changes: a route that stores, moves or tidies while it reads. Its members: every route of the app by GET
and HEAD (rq-dashboard's /rq/requeue/<queue>), and what RQ removes while it reads: a queue's entry without a job, a
worker whose key expired.

The class of oddities: an argument in a path under /rq/ that RQ or the dashboard does not expect. Its members: each
argument of each route (job ids, queues, registries, orders, pages, sizes, instances), with each method; jobs, queues
and workers of other applications, pickled or broken; and an answer of Redis that is an error, taken for an outage.
"""

import contextlib
import functools
import hashlib
import pickle
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from rq import Queue

from tests.support.http import refused
from tests.support.launcher import ROOT
from tests.support.service import Service, eventually

ODD = ["a.b", "<script>", "x:y", "..x", "%00", "%2F", "%0A", "%ff", "ü", "a b", "-1", "0", "00", "1e3", "x", "9" * 30]
ODD += ["9" * 5000, "a" * 3000, "*", "default", "nope", "'\"`", "\\", "{{7*7}}", "None", "١", "+1", "1_0"]


@pytest.fixture(scope="module")
def service(apart: dict[str, str]) -> Iterator[Service]:
    """An API without a worker, and in Redis also what others left there."""
    service = Service({**apart, "JOBSVC_WEBHOOK_SECRETS": f"whsec_{'A' * 32}"})
    with contextlib.closing(service.redis()) as connection:
        leave_oddities(connection)
    yield service
    service.close()


def leave_oddities(connection: Any) -> None:
    """Pickled and broken jobs, entries without jobs, a key of another type, and workers that are missing or broken."""
    queue = Queue("jobsvc.theirs", connection=connection)
    connection.sadd(Queue.redis_queues_keys, queue.key, "rq:queue:jobsvc.default", "rq:queue:jobsvc.broken")
    call = zlib.compress(pickle.dumps(("os.getcwd", None, (), {})))
    hashes: dict[str, dict[str, Any]] = {
        "pickled": {"data": call, "meta": pickle.dumps({"a": 1}), "origin": "jobsvc.theirs", "status": "failed"},
        "broken": {"data": b"\xff\xfe", "created_at": "yesterday", "origin": "jobsvc.theirs", "status": "?"},
        "empty": {"x": "y"},
    }
    for name, fields in hashes.items():
        connection.hset(f"rq:job:{name}", mapping={"created_at": "2026-01-01T00:00:00.000000Z", **fields})
        connection.rpush(queue.key, name)
        connection.zadd("rq:failed:jobsvc.theirs", {name: 9e9})
    for name in ("missing", str(uuid4()), "a.b", "<script>"):
        connection.rpush("rq:queue:jobsvc.default", name)
        connection.zadd("rq:failed:jobsvc.default", {name: 9e9})
    connection.set("rq:queue:jobsvc.broken", "a string")
    connection.sadd("rq:workers", "rq:worker:missing", "rq:worker:broken")
    fields = {
        "queues": "jobsvc.theirs",
        "current_job": "pickled",
        "state": "busy",
        "birth": "2026-01-01T00:00:00.000000Z",
    }
    connection.hset("rq:worker:broken", mapping=fields)


@functools.cache
def rules() -> list[tuple[str, set[str]]]:
    """The path and the methods of every rule of the app."""
    script = "from wsgi import app\nfor r in app.url_map.iter_rules(): print(r.rule, *(r.methods or ()))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return [(path, set(methods)) for path, *methods in (line.split() for line in done.stdout.splitlines())]


def snapshot(service: Service) -> dict[str, str]:
    """A digest of each table and of each key in Redis."""
    tables = service.sql("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    found = {}
    for (table,) in tables:
        rows = service.sql(f"SELECT coalesce(md5(string_agg(t::text, E'\\n' ORDER BY t::text)), '') FROM {table} t")
        found[table] = rows[0][0]
    with contextlib.closing(service.redis()) as connection:
        for key in connection.scan_iter():
            dump = connection.dump(key) or b""
            found[key.decode("utf-8", "replace")] = hashlib.sha256(dump).hexdigest()
    return found


def settled(service: Service) -> dict[str, str]:
    """The snapshot, once two in a row are alike: the relay has done what there was to do."""
    last: list[dict[str, str]] = [{}]

    def check() -> dict[str, str] | None:
        before, last[0] = last[0], snapshot(service)
        return last[0] if before == last[0] else None

    return eventually(check, 30, 1.0)


def test_get_head_and_options_change_nothing(service: Service) -> None:
    waiting, cancelled = service.post(delay=3600), service.post(webhookUrl="https://example.com/")
    assert service.client.post(f"/jobs/{cancelled}/cancel").status_code == 200
    schedule = {"cron": "@yearly", "job": {}}
    assert service.client.put("/schedules/yearly", json=schedule).status_code == 201
    values = {
        "job_id": [waiting, cancelled, "pickled", "broken", "empty", "missing"],
        "queue_name": ["jobsvc.default", "jobsvc.theirs"],
        "registry_name": ["queued", "failed"],
        "name": ["yearly", "default"],
        "instance_number": ["0"],
        "order": ["dsc"],
        "page": ["1"],
        "per_page": ["50"],
        "filename": ["css/main.css"],
        "rest": ["nope"],
    }
    asked = 0
    refused(service.client.get("/rq/requeue/jobsvc.default"), 405)
    before = settled(service)
    for path, _ in rules():
        for url in filled(path, values):
            for method in ("GET", "HEAD", "OPTIONS"):
                reply = service.client.request(method, url, headers={"Prefer": "wait=0"}, timeout=10)
                assert reply.status_code < 500 or url == "/readyz", (method, url)
                asked += reply.status_code == 200
    assert asked > 60
    assert settled(service) == before


def filled(path: str, values: dict[str, list[str]]) -> list[str]:
    """The paths of a rule with these arguments, each of them at least once."""
    names = re.findall(r"<(?:\w+:)?(\w+)>", path)
    if names and names[-1] == "job_id" and path.endswith("/events"):
        return [path.replace("<uuid:job_id>", values["job_id"][1])]  # of a job that has ended, which ends the stream
    longest = max((len(values[name]) for name in names), default=1)
    found = []
    for at in range(longest):
        url = path
        for name in names:
            url = re.sub(rf"<(?:\w+:)?{name}>", values[name][at % len(values[name])], url)
        found.append(url)
    return found


def test_invalid_arguments_are_404_without_a_traceback(service: Service) -> None:
    usual = {"job_id": "missing", "queue_name": "jobsvc.default", "registry_name": "queued", "instance_number": "0"}
    usual |= {"order": "asc", "page": "1", "per_page": "8", "filename": "css/main.css"}
    logged = len(service.api.output)
    for path, methods in rules():
        if not path.startswith("/rq"):
            continue
        for odd_one in re.findall(r"<(?:\w+:)?(\w+)>", path):
            for odd in ODD:
                arguments = {**usual, odd_one: odd if odd.startswith("%") else quote(odd, safe="")}
                url = re.sub(r"<(?:\w+:)?(\w+)>", lambda found, arguments=arguments: arguments[found[1]], path)
                for method in methods - {"HEAD", "OPTIONS"}:
                    reply = service.client.request(method, url)
                    is_fine = (odd_one, odd) in (("instance_number", "0"), ("queue_name", "default"))
                    expected = (
                        {200, 308, 404, 405, 409} if is_fine else {404, 405, 409} if odd == "nope" else {404, 405}
                    )
                    if odd == "00":  # a number all the same
                        expected = expected | {200, 308}
                    assert reply.status_code in expected, (method, url)
                    assert reply.status_code < 400 or "html" not in reply.headers["Content-Type"]
    log = service.api.output[logged:]
    assert "Traceback" not in log
    assert "500" not in log


def test_foreign_data_in_redis_causes_no_error(service: Service) -> None:
    logged = len(service.api.output)
    for job_id in ("pickled", "broken", "empty", "missing"):
        for path in (f"0/view/job/{job_id}", f"0/data/job/{job_id}.json"):
            assert service.client.get(f"/rq/{path}").status_code in (200, 404)
        for button in ("requeue", "delete"):
            refused(service.client.post(f"/rq/job/{job_id}/{button}"), 404 if job_id == "missing" else 409)
    for registry in ("queued", "failed"):
        shown = service.client.get(f"/rq/0/data/jobs/jobsvc.theirs/{registry}/50/asc/1.json")
        assert {"pickled"} <= {job["id"] for job in shown.json()["jobs"]}
        assert service.client.get(f"/rq/0/data/jobs/jobsvc.default/{registry}/50/asc/1.json").status_code == 200
    for queue in ("jobsvc.theirs", "jobsvc.default"):
        assert service.client.post(f"/rq/requeue/{queue}").json() == {"status": "OK", "count": 0}
    workers = service.client.get("/rq/0/data/workers.json").json()["workers"]
    assert [worker["name"] for worker in workers] == ["broken"]
    assert "Traceback" not in service.api.output[logged:]


def test_error_reply_of_redis_is_not_an_outage(service: Service) -> None:
    """A key of another type: to ask again won't mend it, so it is no 503."""
    reply = service.client.get("/rq/0/data/jobs/jobsvc.broken/queued/8/asc/1.json")
    assert "Retry-After" not in reply.headers
    refused(reply, 404)
