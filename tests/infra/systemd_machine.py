"""A real systemd in namespaces of its own, which runs the units of deploy/systemd."""

import contextlib
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import psutil
import pytest

from tests.infra.debian import program
from tests.support.launcher import ROOT
from tests.support.service import Process, eventually

BOOT = Path(__file__).with_name("boot_systemd.sh")
CGROUPS = Path("/sys/fs/cgroup")


class Machine:
    """systemd as the first process of its namespaces, with these settings for the units. Skips where it can't boot."""

    def __init__(self, env: dict[str, str]) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root boots a systemd")
        for name in ("systemd-analyze", "unshare", "nsenter"):
            program(name)
        self._folder = Path(tempfile.mkdtemp(prefix="jobsvc-systemd-", dir="/tmp"))
        self._folder.chmod(0o755)
        self._env = self._folder.with_suffix(".env")
        self._env.write_text("".join(f"{name}={value}\n" for name, value in env.items()))
        unified = CGROUPS / "unified" if (CGROUPS / "unified").exists() else CGROUPS
        self._cgroup = unified / self._folder.name
        try:
            self._cgroup.mkdir()
        except OSError as error:
            pytest.skip(f"no cgroup can be made here: {error}")
        places = [str(self._folder), str(ROOT), sys.base_prefix, sysconfig.get_path("purelib")]
        # In the cgroup first: it is the root of the namespace.
        enter = f'echo $$ >{self._cgroup}/cgroup.procs; exec unshare -m -p -f -u -i -C sh {BOOT} "$@"'
        self._process = Process("sh", "-c", enter, "boot", *places)
        self._pid = 0
        eventually(self._is_booted, 60)

    def _is_booted(self) -> bool:
        if self._process.popen.poll() is not None:
            output = self._process.output
            self.close()
            pytest.skip(f"systemd does not boot here: {output[-300:]}")
        for one in psutil.Process(self._process.popen.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if one.name() == "systemd":
                    self._pid = one.pid
        return bool(self._pid) and "running" in self.run("systemctl", "is-system-running", is_checked=False)

    def run(self, *command: str, is_checked: bool = True) -> str:
        """Run a command on the machine; returns its output."""
        enter = ["nsenter", f"--target={self._pid}", "-m", "-p", "-u", "-i", "-r", "-w"]
        done = subprocess.run([*enter, *command], capture_output=True, text=True, check=False, timeout=120)
        assert not is_checked or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}{self.logs()}"
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "-P", name, unit).strip()

    def logs(self) -> str:
        """Return the end of what the units printed."""
        return self.run("sh", "-c", "tail -n 40 /var/log/jobsvc/*", is_checked=False)

    def close(self) -> None:
        """End everything that runs there."""
        self._process.kill()
        self._env.unlink()
        eventually(self._is_removed, 20)
        self._folder.rmdir()

    def _is_removed(self) -> bool:
        """Remove the cgroups; a process that was killed keeps its own for a moment."""
        try:
            for folder in sorted(self._cgroup.rglob("*/"), reverse=True):
                folder.rmdir()
            self._cgroup.rmdir()
        except OSError:
            return False
        return True
