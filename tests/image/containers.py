"""Containers of the image, made of namespaces: what a container engine does, as far as the tests need it."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.faults.test_pid_one import first
from tests.image.build import Image
from tests.infra.debian import program
from tests.support.service import Process, eventually

_SETUP = """
set -e
files=$1 root=$2 hosts=$3 user=$4 name=$5; shift 5
mount --make-rprivate /
mount --bind "$files" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for one in null:3 zero:5 random:8 urandom:9; do mknod -m 666 "$root/dev/${one%:*}" c 1 "${one#*:}"; done
mkdir -m 1777 "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount --bind "$hosts" "$root/etc/hosts"
for folder in $TMPFS; do mount -t tmpfs -o mode=1777 tmpfs "$root$folder"; done
for pair in $BINDS; do mount --bind -o ro "${pair%%:*}" "$root${pair#*:}"; done
hostname "$name"
exec chroot --userspec="$user" --groups= "$root" "$@"
"""


class Network:
    """A network namespace with a loopback alone, so without a way out; each name of a service means 127.0.0.1."""

    def __init__(self, names: Sequence[str]) -> None:
        self.name = f"ji{os.getpid() % 100_000}"
        self.folder = Path(tempfile.mkdtemp(prefix="jobsvc-image-"))
        self.hosts = self.folder / "hosts"
        self.hosts.write_text(f"127.0.0.1 localhost {' '.join(names)}\n")
        self.hosts.chmod(0o644)
        self.folder.chmod(0o755)
        self._ip("netns", "add", self.name)
        self._ip("-n", self.name, "link", "set", "lo", "up")

    @property
    def command(self) -> tuple[str, ...]:
        """The prefix of a command that runs in it."""
        return (program("ip"), "netns", "exec", self.name)

    def remove(self) -> None:
        self._ip("netns", "del", self.name)
        shutil.rmtree(self.folder)

    def _ip(self, *arguments: str) -> None:
        subprocess.run([program("ip"), *arguments], check=True, capture_output=True)


class Container:
    """A process of the image as PID 1: no rights, no network but that one, its root read-only, no writable folder.

    tmpfs: folders that are writable after all. binds: files or folders of this machine, by their place in the image.
    """

    def __init__(
        self,
        network: Network,
        image: Image,
        *command: str,
        env: dict[str, str],
        tmpfs: Sequence[str] = (),
        binds: dict[Path, str] | None = None,
    ) -> None:
        self._image = image
        self.environment = {**image.environment, **env}
        root = Path(tempfile.mkdtemp(prefix="root-", dir=network.folder))
        name = command[0] if command else "api"
        outer = {"TMPFS": " ".join(tmpfs), "BINDS": " ".join(f"{one}:{place}" for one, place in (binds or {}).items())}
        self.process = Process(
            *network.command,
            *("unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child"),
            *(
                "sh",
                "-c",
                _SETUP,
                "setup",
                str(image.folder),
                str(root),
                str(network.hosts),
                ":".join(image.user),
                name,
            ),
            *("/usr/bin/env", "-i", "-C", image.config["WorkingDir"], *self._variables()),
            *(*image.config["Entrypoint"], *(command or image.config["Cmd"])),
            env=outer,
        )

    def _variables(self) -> list[str]:
        return [f"{name}={value}" for name, value in self.environment.items()]

    @property
    def output(self) -> str:
        return self.process.output

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as `docker exec` does."""
        user, group = self._image.user
        inside = (
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--root",
            "--wd",
            f"--setuid={user}",
            f"--setgid={group}",
        )
        return subprocess.run(
            ["nsenter", "--target", str(first(self.process).pid), *inside, "env", "-i", *self._variables(), *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def check_health(self) -> subprocess.CompletedProcess[str]:
        """Run the image's HEALTHCHECK."""
        kind, *command = self._image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self.run(*command)

    def is_healthy(self) -> bool:
        assert self.process.popen.poll() is None, self.output
        return self.check_health().returncode == 0

    def until_healthy(self) -> None:
        eventually(lambda: "exec" not in first(self.process).name(), 60)
        eventually(self.is_healthy, 60, 0.5)

    def stop(self, seconds: float) -> int:
        """Send STOPSIGNAL to PID 1; returns the exit status. Fails if it takes longer."""
        os.kill(first(self.process).pid, signal.Signals[self._image.config["StopSignal"]])
        return self.process.wait(seconds)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
