"""Servers as Debian ships them, on loopback ports and in temporary folders, ended by process id."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import redis

from tests.infra.debian import program
from tests.support.servers import sql
from tests.support.service import eventually, free_port

USER = "nobody"
"""Who the servers run as where the tests run as root: Postgres and PgBouncer refuse root."""


class Daemon:
    """A server in the foreground, with a folder that belongs to its user, its log there."""

    def __init__(self, folder: Path, *command: str, stop_signal: signal.Signals = signal.SIGTERM) -> None:
        self.command, self.folder, self._stop_signal = command, folder, stop_signal
        self.log = folder / "log"
        self.popen = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as out:
            return subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                start_new_session=True,
                **as_user(),
            )

    def start_again(self) -> None:
        """Start it once more, after it has ended."""
        self.popen = self._start()

    def kill(self) -> None:
        """SIGKILL, and wait until it has ended."""
        self.popen.kill()
        self.popen.wait()

    def stop(self) -> None:
        """End it as its manual says; kill it if that takes more than 10 s."""
        with contextlib.suppress(ProcessLookupError):
            self.popen.send_signal(self._stop_signal)
            try:
                self.popen.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.popen.pid, signal.SIGKILL)
                self.popen.wait()

    def until(self, answers: Callable[[], object]) -> None:
        """Wait until this returns without an error of a driver or socket."""

        def check() -> bool:
            assert self.popen.poll() is None, self.log.read_text()
            with contextlib.suppress(OSError, redis.RedisError, psycopg2.Error):
                answers()
                return True
            return False

        eventually(check, 30)


def as_user() -> dict[str, object]:
    """Arguments for Popen: another user than root."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(USER)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def give(path: Path) -> Path:
    """Let the servers' user own a folder or file."""
    if os.geteuid() == 0:
        entry = pwd.getpwnam(USER)
        os.chown(path, entry.pw_uid, entry.pw_gid)
    return path


class Infrastructure:
    """The servers of one topic; all are stopped, the last first, and their folders removed, at the end."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.root = Path(tempfile.mkdtemp(prefix="jobsvc-infra-", dir="/tmp"))
        self.root.chmod(0o755)
        self.daemons: list[Daemon] = []

    def folder(self, name: str) -> Path:
        """Make a folder for a server, which its user owns."""
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.root))
        path.chmod(0o700)
        return give(path)

    def file(self, folder: Path, name: str, text: str) -> Path:
        path = folder / name
        path.write_text(text)
        path.chmod(0o600)
        return give(path)

    def daemon(self, folder: Path, *command: str, stop_signal: signal.Signals = signal.SIGTERM) -> Daemon:
        one = Daemon(folder, *command, stop_signal=stop_signal)
        self.daemons.append(one)
        return one

    def postgres(self, *options: str, hba: str = "", folder: Path | None = None) -> str:
        """Start Postgres with an empty database `jobsvc`; returns its URL. `options` are as `ssl=on`."""
        folder = folder or self.folder("postgres")
        data = folder / "data"
        command = [program("initdb"), "-D", str(data), "-U", "jobsvc", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, **as_user())
        if hba or self.host != "127.0.0.1":
            with (data / "pg_hba.conf").open("a") as file:
                file.write(hba or f"host all all {self.host}/24 trust\n")
        url = self.start_postgres(folder, *options)
        sql(self.postgres_socket.replace("/jobsvc?", "/postgres?"), "CREATE DATABASE jobsvc")
        return url

    def start_postgres(self, folder: Path, *options: str) -> str:
        """Start Postgres on the data in this folder; returns the URL of the database `jobsvc` there."""
        data, port = folder / "data", free_port(None)
        settings = [
            f"port={port}",
            f"listen_addresses={self.host}",
            f"unix_socket_directories={folder}",
            "fsync=off",
            *options,
        ]
        chosen = [part for one in settings for part in ("-c", one)]
        server = self.daemon(folder, program("postgres"), "-D", str(data), *chosen, stop_signal=signal.SIGINT)
        server.until(lambda: psycopg2.connect(host=str(folder), port=port, user="jobsvc", dbname="postgres").close())
        self.postgres_socket = f"postgresql://jobsvc@/jobsvc?host={folder}&port={port}"
        return f"postgresql://jobsvc@{self.host}:{port}/jobsvc"

    def standby(self, database_url: str) -> str:
        """Start a standby of this Postgres, which replicates from it; returns its URL."""
        folder, port, source = self.folder("standby"), free_port(None), urlsplit(database_url)
        data = folder / "data"
        command = [program("pg_basebackup"), "-R", "-c", "fast", "-D", str(data), "-d", database_url]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, **as_user())
        options = [f"port={port}", f"listen_addresses={self.host}", f"unix_socket_directories={folder}"]
        chosen = [part for one in options for part in ("-c", one)]
        server = self.daemon(folder, program("postgres"), "-D", str(data), *chosen, stop_signal=signal.SIGINT)
        url = database_url.replace(f":{source.port}/", f":{port}/")
        server.until(lambda: psycopg2.connect(url).close())
        return url

    def nginx(self, blocks: str, port: int) -> str:
        """Start nginx with these blocks of its `http` context, which listen on `port`; returns the URL."""
        folder = self.folder("nginx")
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
        text = f"pid {folder}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}{blocks}\n}}\n"
        config = self.file(folder, "nginx.conf", text)
        server = self.daemon(folder, program("nginx"), "-c", str(config), "-e", "stderr", "-g", "daemon off;")
        server.until(lambda: self.connects(port))
        return f"http://{self.host}:{port}"

    def redis(self, *options: str, port: int | None = None) -> tuple[str, Daemon]:
        """Start Redis; returns its URL and the server, which also listens on `redis.sock` in its folder."""
        folder, port = self.folder("redis"), port or free_port(None)
        command = [program("redis-server"), "--port", str(port), "--bind", self.host, "--dir", str(folder)]
        command += ["--save", "", "--protected-mode", "no", "--unixsocket", str(folder / "redis.sock"), *options]
        server = self.daemon(folder, *command)
        # A connection is enough: it may want a password.
        server.until(lambda: self.connects(port))
        return f"redis://{self.host}:{port}/0", server

    def connects(self, port: int) -> None:
        """Raise OSError unless something listens there."""
        socket.create_connection((self.host, port), 1).close()

    def pgbouncer(self, database_url: str, mode: str) -> tuple[str, Daemon]:
        """Start PgBouncer in front of this database; returns the URL through it, and the server."""
        folder, port = self.folder("pgbouncer"), free_port(None)
        target = urlsplit(database_url)
        lines = [
            "[databases]",
            f"jobsvc = host={target.hostname} port={target.port} dbname=jobsvc user=jobsvc",
            "[pgbouncer]",
            f"listen_addr = {self.host}",
            f"listen_port = {port}",
            "unix_socket_dir =",
            "auth_type = any",
            f"pool_mode = {mode}",
            "max_client_conn = 200",
            "default_pool_size = 20",
        ]
        config = self.file(folder, "pgbouncer.ini", "\n".join(lines) + "\n")
        server = self.daemon(folder, program("pgbouncer"), str(config), stop_signal=signal.SIGINT)
        url = f"postgresql://jobsvc@{self.host}:{port}/jobsvc"
        server.until(lambda: psycopg2.connect(url).close())
        return url, server

    def haproxy(self, urls: dict[str, str], idle_seconds: float) -> dict[str, str]:
        """Start HAProxy in front of these; returns the URLs through it. It closes connections that are idle so long."""
        folder, ports = self.folder("haproxy"), {name: free_port(None) for name in urls}
        idle = f"{int(idle_seconds * 1000)}ms"
        lines = ["defaults", "mode tcp", "timeout connect 2s", f"timeout client {idle}", f"timeout server {idle}"]
        for name, url in urls.items():
            target = urlsplit(url)
            lines += [f"listen {name}", f"bind {self.host}:{ports[name]}"]
            lines.append(f"server {name} {target.hostname}:{target.port}")
        config = self.file(folder, "haproxy.cfg", "\n".join(lines) + "\n")
        server = self.daemon(folder, program("haproxy"), "-f", str(config))
        for port in ports.values():
            server.until(lambda port=port: self.connects(port))
        return {name: url.replace(f":{urlsplit(url).port}", f":{ports[name]}") for name, url in urls.items()}

    def stop(self) -> None:
        for one in reversed(self.daemons):
            one.stop()
        shutil.rmtree(self.root, ignore_errors=True)


@contextlib.contextmanager
def infrastructure(host: str = "127.0.0.1") -> Iterator[Infrastructure]:
    """Servers for the block."""
    servers = Infrastructure(host)
    try:
        yield servers
    finally:
        servers.stop()
