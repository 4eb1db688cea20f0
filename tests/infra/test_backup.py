"""A backup of Postgres alone is enough: restored beside an empty Redis, the service goes on from the backup's moment.

The backup is taken while jobs of every state exist and run. A copy may also run beside the original.
"""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.infra.debian import program
from tests.infra.deployment import SHORT
from tests.infra.every_state import HANDLERS, EveryState
from tests.infra.servers import Infrastructure, as_user
from tests.infra.versions import Version
from tests.support.servers import sql
from tests.support.service import POOL, Service


def migrate(env: dict[str, str], *options: str) -> None:
    Version(env).migrate(*options)


def dump_and_restore(url: str, file: Path) -> str:
    """Copy a database by the commands of docs/upgrade.md; returns the copy's URL."""
    subprocess.run([program("pg_dump"), "-Fc", "-f", str(file), url], check=True)
    server, _, _ = url.rpartition("/")
    sql(f"{server}/postgres", "CREATE DATABASE restored TEMPLATE template0 ENCODING 'UTF8'")
    subprocess.run([program("pg_restore"), "--exit-on-error", "-d", f"{server}/restored", str(file)], check=True)
    return f"{server}/restored"


def base_backup(servers: Infrastructure, url: str) -> str:
    """Copy all files of a running Postgres, and start another one on them; returns its URL."""
    folder = servers.folder("restored")
    server, _, _ = url.rpartition("/")
    command = [program("pg_basebackup"), "-d", f"{server}/postgres", "-D", str(folder / "data"), "-c", "fast"]
    subprocess.run(command, check=True, capture_output=True, cwd=folder, **as_user())
    return servers.start_postgres(folder)


@pytest.mark.parametrize("is_dump", [True, False], ids=["dump", "base backup"])
def test_restored_postgres_with_an_emptied_redis_goes_on(
    servers: Infrastructure, tmp_path: Path, is_dump: bool
) -> None:
    url, (redis_url, _) = servers.postgres(), servers.redis()
    env = {**SHORT, "DATABASE_URL": url, "REDIS_URL": redis_url, "JOBSVC_HANDLERS": HANDLERS}
    migrate(env)
    original = restored = Version(env)
    try:
        service = original.start()
        states = EveryState(service, tmp_path)
        backup = dump_and_restore(url, tmp_path / "dump") if is_dump else base_backup(servers, url)

        # What happens between the backup and the loss.
        later = service.post(delay=3600)
        assert service.client.post("/queues/low/resume").status_code == 200
        for job_id in states.paused:
            service.until(job_id, "COMPLETED")
        original.close()
        with service.redis() as client:
            client.flushall()

        restored = Version({**env, "DATABASE_URL": backup})
        service = restored.start()
        assert {service.job(job_id)["status"] for job_id in states.paused} == {"PENDING"}
        assert service.client.get(f"/jobs/{later}").status_code == 404
        states.finish(service)
        states.check(service)
        assert service.client.get("/metrics").status_code == 200
        for job_id in states.running:
            assert [one["outcome"] for one in service.attempts(job_id)] == ["lost", "completed"]
    finally:
        for version in (original, restored):
            version.close()
    for output in restored.outputs:
        assert "Traceback" not in output, output
    starts = Counter(line.split()[0] for line in states.notes.read_text().splitlines())
    assert {starts[job_id] for job_id in states.paused} == {2}  # they ran before the loss, too
    assert {starts[job_id] for job_id in states.once} <= {1, 2}
    assert {starts[job_id] for job_id in states.ended} <= {0, 1}


def test_copy_beside_the_original_needs_an_id_and_a_namespace(servers: Infrastructure, tmp_path: Path) -> None:
    url, (redis_url, _) = servers.postgres(), servers.redis()
    env = {**SHORT, "DATABASE_URL": url, "REDIS_URL": redis_url}
    migrate(env)
    original, apart = Service(env), None
    try:
        waiting = original.post()  # no worker: it waits, in the original and in the copy
        copy = {**env, "DATABASE_URL": dump_and_restore(url, tmp_path / "dump")}
        migrate(copy, "--new-owner")
        refused = original.run(*POOL, env=copy)
        assert refused.wait() == 1
        assert refused.output.startswith("jobsvc: JOBSVC_NAMESPACE: jobsvc belongs to the jobs of another database")

        apart = Version({**copy, "JOBSVC_NAMESPACE": "copy"})
        service = apart.start()
        service.until(waiting, "COMPLETED", timeout=40)
        service.until(service.post(), "COMPLETED")
        assert original.job(waiting)["status"] == "PENDING"
        original.worker()
        original.until(waiting, "COMPLETED")
    finally:
        original.close()
        if apart:
            apart.close()
