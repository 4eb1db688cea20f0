"""Programs that can't start write one line to stderr without secrets, and end with a status other than 0.

Every program reads the settings: the API, a worker, a stock `rq worker`, migrations, `flask jobs`, other flask
commands, `make up`, and what starts the embedded servers. What may be wrong is listed in tests/unit/test_config.py
and tests/unit/handlers/test_loading.py, where all of it is tried within one process; here each program meets a part.
Then HOST and PORT: names, IPv6, ports that are taken, addresses of other machines. Then Postgres, for programs that
need it at once (migrations): closed, unknown, not Postgres, wrong password, no such database, no TLS, no rights, and
tables of another version; and for those that wait for it (API, worker), which start without Redis, too.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from jobsvc.devservices import Postgres, Valkey
from jobsvc.errors import ConfigError
from jobsvc.servers.listening import check_port
from tests.support.launcher import ROOT
from tests.support.servers import sql, upgrade
from tests.support.service import POOL, STOCK, Process, Service, eventually, free_port

SECRET = "hunter2-Zq9"
SERVE = (sys.executable, "-m", "jobsvc.serve")
FLASK = (sys.executable, "-m", "flask", "--app", "wsgi")
MIGRATE = (*FLASK, "db", "upgrade")
UP = (sys.executable, "-m", "jobsvc.devservices", "up")
SERVICES = (sys.executable, "-m", "jobsvc.devservices", "start")
PROGRAMS = {
    "api": SERVE,
    "worker": POOL,
    "rq": STOCK,
    "migrate": MIGRATE,
    "jobs": (*FLASK, "jobs", "list"),
    "routes": (*FLASK, "routes"),
    "up": UP,
    "services": SERVICES,
}


def run(*command: str, cwd: Path | str = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refused(*command: str, cwd: Path | str = ROOT, **env: str) -> str:
    """The line with which a program refuses to start."""
    done = run(*command, cwd=cwd, **env)
    assert done.returncode > 0
    assert done.stdout == ""
    assert done.stderr.startswith("jobsvc: ")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not [SECRET[i : i + 4] for i in range(len(SECRET) - 3) if SECRET[i : i + 4] in done.stderr]
    return done.stderr.removeprefix("jobsvc: ").rstrip()


def refused_all(cases: list[tuple[tuple[str, ...], dict[str, str]]]) -> list[str]:
    """The same of several programs, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda case: refused(*case[0], **case[1]), cases))


def test_every_program_refuses_a_broken_url_without_its_secret(tmp_path: Path) -> None:
    wrong = {"DATABASE_URL": f"postgresql://u:{SECRET}/x@h:5432/d", "JOBSVC_DEV_DIR": str(tmp_path)}
    for line in refused_all([(command, wrong) for command in PROGRAMS.values()]):
        assert line.startswith("DATABASE_URL: it can't be read: write it as postgresql://")


@pytest.mark.parametrize(
    ("program", "name", "value"),
    [
        ("rq", "REDIS_URL", f"redis://:{SECRET}/pw@h:6379/0"),
        ("worker", "JOBSVC_API_KEYS", f"me:root:{SECRET}"),
        ("migrate", "JOBSVC_WEBHOOK_SECRETS", SECRET),
        ("services", "PORT", "many"),
        ("api", "HOST", "0.0.0.0"),
        ("jobs", "JOBSVC_QUEUES", "a,a"),
    ],
)
def test_programs_refuse_a_wrong_setting(program: str, name: str, value: str) -> None:
    assert refused(*PROGRAMS[program], **{name: value}).startswith(f"{name}: ")


def test_failing_handler_module_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "leaves_at_once.py").write_text("import sys\n\nsys.exit(0)\n")
    env = {"JOBSVC_HANDLERS": "leaves_at_once", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    for line in refused_all([(PROGRAMS[name], env) for name in ("api", "worker", "rq", "migrate", "up")]):
        assert line == f"JOBSVC_HANDLERS: {tmp_path}/leaves_at_once.py, line 3: SystemExit: 0"


def test_failing_module_stops_the_start_despite_threads_or_closed_stderr(tmp_path: Path) -> None:
    (tmp_path / "threads.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()\n1/0\n"
    )
    (tmp_path / "closes.py").write_text("import sys\nsys.stderr.close()\n1/0\n")
    for module in ("threads", "closes"):
        line = refused(*POOL, JOBSVC_HANDLERS=module, PYTHONPATH=f"{tmp_path}:{ROOT}")
        assert line.endswith(f"{module}.py, line 3: ZeroDivisionError: division by zero")


def test_binary_dotenv_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"PORT=3000\nJOBSVC_API_KEYS=a:read:hunter2-Zq9\xff\n")
    assert refused(*SERVE, cwd=tmp_path, PYTHONPATH=str(ROOT)) == ".env: is not UTF-8"


@pytest.mark.parametrize(
    ("has_it", "wants_it"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0"),
        ("::1", "::1"),
        ("127.0.0.1", "::"),
    ],
)
def test_taken_port_is_named(has_it: str, wants_it: str) -> None:
    family = socket.AF_INET6 if ":" in has_it else socket.AF_INET
    with socket.create_server((has_it, 0), family=family) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"^PORT: {port} is taken on {wants_it}: "):
            check_port(wants_it, port)


def test_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^HOST: 192\.0\.2\.1 is not an address of this machine"):
        check_port("192.0.2.1", 3000)


def test_the_api_refuses_a_taken_port(api: Service) -> None:
    assert refused(*SERVE, PORT=str(api.port)).startswith(f"PORT: {api.port} is taken on 127.0.0.1: ")


@pytest.mark.parametrize("host", ["LocalHost", "[::1]"])
def test_the_api_listens_on_names_and_ipv6(host: str) -> None:
    port = free_port(None)
    url = f"http://{host.lower()}:{port}"
    process = Process(*SERVE, env={"HOST": host, "PORT": str(port)})

    def answers() -> bool:
        assert process.popen.poll() is None, process.output
        try:
            return httpx.post(f"{url}/jobs").status_code == 202
        except httpx.TransportError:
            return False

    try:
        eventually(answers, 40)
        assert f"jobsvc serves {url}\n" in process.output
    finally:
        process.kill()


@pytest.fixture(scope="module")
def lonely() -> Iterator[str]:
    """A database without tables, which a role without any right may connect to; the role's URL."""
    server, _, _ = os.environ["DATABASE_URL"].rpartition("/")
    name = f"jobsvc_lonely_{uuid4().hex[:8]}"
    sql(f"{server}/postgres", f"CREATE DATABASE {name}")
    sql(f"{server}/postgres", f"CREATE ROLE {name} LOGIN PASSWORD '{SECRET}'")
    yield f"postgresql://{name}:{SECRET}@{server.rpartition('@')[2]}/{name}"
    sql(f"{server}/postgres", f"DROP DATABASE {name} WITH (FORCE)")
    sql(f"{server}/postgres", f"DROP ROLE {name}")


def test_migrations_name_why_postgres_cannot_be_used(lonely: str) -> None:
    url = os.environ["DATABASE_URL"]
    server = lonely.rpartition("/")[0]
    with socket.create_server(("127.0.0.1", 0)) as silent:  # closed as soon as Postgres' timeout is over
        cases = {
            f"postgresql://u:{SECRET}@127.0.0.1:1/d": "Postgres can't be reached: ",
            f"postgresql://u:{SECRET}@no-such-host.invalid/d": "Postgres can't be reached: could not translate host",
            f"postgresql://u:{SECRET}@127.0.0.1:{silent.getsockname()[1]}/d": "Postgres can't be reached: ",
            lonely.replace(SECRET, f"{SECRET}x"): "Postgres can't be reached: ",
            f"{server}/{SECRET[:3]}": "Postgres can't be reached: ",
            f"{url}?sslmode=require": "Postgres can't be reached: ",
            lonely: "the migration failed, and nothing was changed: permission denied",
        }
        lines = refused_all([(MIGRATE, {"DATABASE_URL": one}) for one in cases])
    for line, says in zip(lines, cases.values(), strict=True):
        assert line.startswith(f"DATABASE_URL: {says}")


def test_migrations_name_tables_of_another_version(apart: dict[str, str]) -> None:
    [(before,)] = sql(apart["DATABASE_URL"], "SELECT version_num FROM alembic_version")
    sql(apart["DATABASE_URL"], "UPDATE alembic_version SET version_num = 'later'")
    line = refused(*MIGRATE, **apart)
    assert line.startswith("DATABASE_URL: the tables were made by another version of this program (")
    assert "'later'" in line
    sql(apart["DATABASE_URL"], "UPDATE alembic_version SET version_num = %s", before)


def test_role_without_rights_is_reported_in_one_line(apart: dict[str, str], lonely: str) -> None:
    database = apart["DATABASE_URL"].rpartition("/")[2]
    done = run(*PROGRAMS["jobs"], DATABASE_URL=f"{lonely.rpartition('/')[0]}/{database}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: Postgres refused this: permission denied for table jobs\n"


def test_api_and_worker_wait_for_unavailable_servers_at_start(tmp_path: Path) -> None:
    servers = [Postgres(tmp_path), Valkey(tmp_path)]
    env = dict(zip(("DATABASE_URL", "REDIS_URL"), (server.start()[0] for server in servers), strict=True))
    service = None
    try:
        upgrade(env)
        for server in servers:
            server.stop()
        service = Service(env)
        worker = service.run(*POOL, env={"JOBSVC_WORKERS": "1"})
        reply = service.client.post("/jobs")
        assert (reply.status_code, reply.headers["Retry-After"]) == (503, "2")
        assert service.client.get("/healthz").status_code == 200
        eventually(lambda: "Worker Started" in worker.output, 30)
        for server, name in zip(servers, env, strict=True):
            assert server.start()[0] == env[name]
        eventually(lambda: service and '"redis":"up"' in service.client.get("/readyz").text, 30)
        service.until(service.post(), "COMPLETED", timeout=40)
        assert service.alive(worker)
        for output in (worker.output, service.api.output):
            assert "Traceback" not in output
            assert env["DATABASE_URL"].split(":")[2].partition("@")[0] not in output
    finally:
        if service:
            service.close()
        for server in servers:
            server.stop()
