"""What compose.yaml starts, without a container engine: containers of the image, and embedded servers for the rest."""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from jobsvc.devservices import Postgres, Valkey
from tests.image.build import Image
from tests.image.containers import Container, Network
from tests.infra.debian import program
from tests.support.launcher import ROOT
from tests.support.service import Process, eventually

_VARIABLE = re.compile(r"\$\{(\w+)(?:(:-|:\?)(.*?))?\}")
_UNITS = {"s": 1, "m": 60}
_POSTGRES = Postgres(Path()).wheel() / "pginstall" / "bin"


def read_compose(variables: dict[str, str]) -> dict[str, Any]:
    """Return compose.yaml with the variables of `.env` in place. Raises ValueError as `docker compose` fails."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if operator == ":?" and not variables.get(name):
            raise ValueError(f"required variable {name} is missing a value: {rest}")
        return variables.get(name) or (rest if operator == ":-" else "")

    def interpolate(found: Any) -> Any:
        match found:
            case dict():
                return {key: interpolate(one) for key, one in found.items()}
            case list():
                return [interpolate(one) for one in found]
            case str():
                return _VARIABLE.sub(value, found)
            case _:
                return found

    return dict(interpolate(yaml.safe_load((ROOT / "compose.yaml").read_text())))


def seconds(duration: str) -> int:
    """Return the seconds of a duration such as `30s`."""
    return int(duration[:-1]) * _UNITS[duration[-1]]


class Topology:
    """What `docker compose up` starts, in the order of `depends_on`."""

    def __init__(self, image: Image, variables: dict[str, str]) -> None:
        self.services: dict[str, Any] = read_compose(variables)["services"]
        self._image = image
        self.network = Network(list(self.services))
        self.containers: dict[str, Container] = {}
        self._servers: dict[str, Process] = {}

    def up(self) -> None:
        waiting = dict(self.services)
        while waiting:
            name = next(
                one for one, service in waiting.items() if not set(service.get("depends_on", {})) & set(waiting)
            )
            for other, needed in waiting.pop(name).get("depends_on", {}).items():
                self._wait(other, needed["condition"])
            self.start(name)

    def start(self, name: str, **env: str) -> Container | None:
        """Start a service of compose.yaml with further variables."""
        service = self.services[name]
        match name:
            case "postgres":
                self._start_postgres(service["environment"])
            case "valkey":
                self._start_valkey(service["command"])
            case _:
                assert service["image"] == "jobsvc"
                assert service["read_only"]
                env = {**service["environment"], **env}
                self.containers[name] = Container(
                    self.network, self._image, service["command"], env=env, tmpfs=[service["tmpfs"]]
                )
                return self.containers[name]
        return None

    def run(self, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command of this machine in the network of the services."""
        return subprocess.run(
            [*self.network.command, *command], capture_output=True, text=True, env={**os.environ, **env}, timeout=60
        )

    def stop_server(self, name: str) -> None:
        self._servers[name].kill()

    def close(self) -> None:
        for one in (*self.containers.values(), *self._servers.values()):
            one.kill()
        self.network.remove()

    def _wait(self, name: str, condition: str) -> None:
        match condition:
            case "service_completed_successfully":
                container = self.containers[name]
                assert container.process.wait(120) == 0, container.output
            case "service_healthy":
                test = self.services[name]["healthcheck"]["test"]
                assert test[0] == "CMD"
                path = f"{self.network.folder}:{_POSTGRES}:{os.environ['PATH']}"
                eventually(lambda: self.run(*test[1:], PATH=path).returncode == 0, 60, 0.2)

    def _start_postgres(self, env: dict[str, str]) -> None:
        folder = self.network.folder / "postgres"
        folder.mkdir()
        server = Postgres(folder)
        state = {"password": env["POSTGRES_PASSWORD"], "port": 5432}
        with contextlib.closing(open(os.devnull)) as lock:
            server.prepare(state, lock.fileno())
        self._servers["postgres"] = Process(*self.network.command, *server.command(state))
        self._wait("postgres", "service_healthy")
        login = {"PGPASSWORD": env["POSTGRES_PASSWORD"], "PGUSER": env["POSTGRES_USER"], "PGHOST": "127.0.0.1"}
        made = self.run(str(_POSTGRES / "createdb"), env["POSTGRES_USER"], **login)
        assert made.returncode == 0, made.stderr

    def _start_valkey(self, command: list[str]) -> None:
        [server, _] = Valkey(self.network.folder).command({})
        assert command[0] == Path(server).name
        (self.network.folder / "valkey-cli").symlink_to(program("redis-cli"))
        self._servers["valkey"] = Process(*self.network.command, server, *command[1:])


@contextlib.contextmanager
def topology(image: Image, variables: dict[str, str]) -> Iterator[Topology]:
    """The running services, for the block."""
    made = Topology(image, variables)
    try:
        made.up()
        yield made
    finally:
        made.close()
