"""nginx in front of several deployments, with the files of deploy/nginx for that: read replicas, and cells."""

import contextlib
from collections.abc import Iterator

import httpx
import psycopg2

from tests.infra.deployment import deployment
from tests.infra.servers import Infrastructure
from tests.support.launcher import ROOT
from tests.support.servers import sql
from tests.support.service import Service, eventually, free_port

BEHIND_PROXY = {"JOBSVC_TRUST_PROXY": "1", "JOBSVC_ALLOW_ANONYMOUS": "1"}


def blocks(name: str, first: Service, second: Service, port: int) -> str:
    """Return this file of deploy/nginx, with the ports of these services and of nginx."""
    text = (ROOT / "deploy/nginx" / name).read_text()
    for shown, real in (("3000", port), ("3001", first.port), ("3002", second.port)):
        assert f"127.0.0.1:{shown}" in text
        text = text.replace(f"127.0.0.1:{shown}", f"127.0.0.1:{real}")
    return text


@contextlib.contextmanager
def api(env: dict[str, str]) -> Iterator[Service]:
    """An API without a worker, on tables that are there."""
    service = Service(env)
    try:
        yield service
    finally:
        service.close()


def test_lists_and_job_pages_come_from_a_replica(servers: Infrastructure) -> None:
    url = servers.postgres()
    env = {"DATABASE_URL": url, "REDIS_URL": servers.redis()[0], **BEHIND_PROXY}
    with deployment(env) as primary:
        primary.until(primary.post(), "COMPLETED")
        standby = servers.standby(url)
        with api({**env, "DATABASE_URL": standby, "JOBSVC_UI": "off"}) as replica:
            port = free_port(None)
            client = httpx.Client(base_url=servers.nginx(blocks("replicas.conf", primary, replica, port), port))
            new = client.post("/jobs", json={}).raise_for_status().json()["jobId"]
            assert client.get(f"/jobs/{new}").status_code == 200  # at once, from either
            eventually(lambda: client.get(f"/jobs/{new}").json()["status"] == "COMPLETED")

            sql(standby, "SELECT pg_wal_replay_pause()")
            behind = client.post("/jobs", json={}).raise_for_status().json()["jobId"]
            primary.until(behind, "COMPLETED")
            assert replica.client.get(f"/jobs/{behind}").status_code == 404
            assert client.get(f"/jobs/{behind}").json()["status"] == "COMPLETED"  # nginx asks the primary
            assert new == client.get("/jobs").json()["jobs"][0]["id"]  # the list is the standby's
            waited = client.get(f"/jobs/{new}", headers={"Prefer": "wait=1"})
            assert waited.headers["Preference-Applied"] == "wait=1"
            assert client.get("/stats").status_code == client.get("/metrics").status_code == 200

            assert replica.client.get("/stats").status_code == 503  # its tables are unlogged
            assert replica.client.get("/metrics").status_code == 503
            assert replica.client.post("/jobs").status_code == 503
            assert "Traceback" not in replica.api.output
        assert client.get("/jobs").json()["jobs"][0]["id"] == behind  # the replica's API has ended
        client.close()


def test_cells_are_reached_by_a_header_or_a_prefix(servers: Infrastructure) -> None:
    first = servers.postgres()
    with contextlib.closing(psycopg2.connect(first)) as connection:
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE acme")
    env = {"DATABASE_URL": first, "REDIS_URL": servers.redis()[0], **BEHIND_PROXY}
    acme = {**env, "DATABASE_URL": f"{first.rpartition('/')[0]}/acme", "JOBSVC_NAMESPACE": "acme"}
    with deployment(env) as one, deployment(acme) as two:
        port = free_port(None)
        client = httpx.Client(base_url=servers.nginx(blocks("cells.conf", one, two, port), port))
        for service, path, headers in (
            (one, "/jobs", {}),
            (two, "/jobs", {"X-Tenant": "acme"}),
            (two, "/acme/jobs", {}),
        ):
            reply = client.post(path, json={}, headers=headers).raise_for_status()
            job_id = reply.json()["jobId"]
            assert service.until(job_id, "COMPLETED")["id"] == job_id
            location = reply.headers["Location"]
            assert location == f"{path}/{job_id}"
            assert client.get(location, headers=headers).json()["id"] == job_id
        [[ours], [theirs]] = (service.sql("SELECT count(*) FROM jobs")[0] for service in (one, two))
        assert (ours, theirs) == (1, 2)
        client.close()
