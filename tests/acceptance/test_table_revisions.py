"""Tables of another revision than the program's: refused if they are missing or older, used if they are newer."""

import sys
from concurrent.futures import ThreadPoolExecutor

from tests.support.launcher import run_program
from tests.support.servers import flask_db, sql, upgrade
from tests.support.service import POOL, STOCK, Service, eventually

FLASK = (sys.executable, "-m", "flask", "--app", "wsgi")
MIGRATE = (sys.executable, "-m", "jobsvc.migrate")
PROGRAMS = {
    "api": (sys.executable, "-m", "jobsvc.serve"),
    "another WSGI server": (*FLASK, "run", "--port", "0"),
    "worker": POOL,
    "stock worker": STOCK,
}


def test_missing_and_older_tables_are_refused_in_one_line(apart: dict[str, str]) -> None:
    for revision, says, programs in (
        ("0010", "older than this program (revision 0010, it needs ", PROGRAMS),
        ("base", "missing; ", ["api", "worker"]),
    ):
        flask_db("downgrade", revision, env=apart)
        with ThreadPoolExecutor(2) as pool:
            for done in pool.map(lambda program: run_program(*PROGRAMS[program], env=apart), programs):
                assert done.returncode > 0
                assert done.stderr.startswith(f"jobsvc: DATABASE_URL: the tables are {says}")
                assert done.stderr.endswith("run `jobsvc migrate`\n")
                assert len(done.stderr.splitlines()) == 1, done.stderr
    upgrade(apart)


def test_tables_of_the_next_version_are_used_and_not_migrated(apart: dict[str, str]) -> None:
    [(before,)] = sql(apart["DATABASE_URL"], "SELECT version_num FROM alembic_version")
    sql(apart["DATABASE_URL"], "UPDATE alembic_version SET version_num = '9999'")
    done = run_program(*MIGRATE, env=apart)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "jobsvc: the tables are newer than this program (revision 9999), nothing is migrated\n"
    service = Service(apart)
    try:
        service.worker()
        service.worker("stock")
        service.until(service.post(), "COMPLETED")
    finally:
        service.close()
        sql(apart["DATABASE_URL"], "UPDATE alembic_version SET version_num = %s", before)


def test_tables_lost_while_processes_run_are_one_outage(apart: dict[str, str]) -> None:
    service = Service(apart)
    try:
        worker = service.worker()
        service.until(service.post(), "COMPLETED")
        for revision in ("0009", "base"):
            flask_db("downgrade", revision, env=apart)
            for _ in range(3):
                reply = service.client.post("/jobs", json={"delay": 1})
                assert reply.status_code == 503
                assert "`jobsvc migrate`" in reply.json()["detail"]
        upgrade(apart)
        service.until(service.post(), "COMPLETED", timeout=40)
        for process in (service.api, worker):
            assert "Traceback" not in process.output
        assert service.api.output.count("Postgres: unavailable") == 1
        eventually(lambda: service.api.output.count("Postgres: available again") == 1)
    finally:
        service.close()
