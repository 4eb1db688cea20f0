"""Programs from Debian's packages, installed where the tests may do that."""

import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest

PACKAGES = {
    "initdb": "postgresql",
    "postgres": "postgresql",
    "pg_dump": "postgresql",
    "pg_restore": "postgresql",
    "pg_basebackup": "postgresql",
    "redis-server": "redis-server",
    "redis-sentinel": "redis-sentinel",
    "pgbouncer": "pgbouncer",
    "haproxy": "haproxy",
    "nginx": "nginx",
    "prometheus": "prometheus",
    "ip": "iproute2",
    "openssl": "openssl",
    "systemd-analyze": "systemd",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
"""The Debian package that brings each program."""

NO_SERVICES = Path("/usr/sbin/policy-rc.d")
"""While this exits with 101, no package starts its service."""


def program(name: str) -> str:
    """Return the path of a program, installed from Debian where that may be done; else skip the topic."""
    path = _find(name)
    if path is None:
        reason = _install(PACKAGES[name])
        path = _find(name)
        if path is None:
            pytest.skip(f"{name} is missing: {reason}", allow_module_level=True)
    return path


def _find(name: str) -> str | None:
    newest_first = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: -float(one.parent.name))
    return shutil.which(name, path=os.pathsep.join([*map(str, newest_first), os.environ["PATH"], "/usr/sbin", "/sbin"]))


@lru_cache
def _install(package: str) -> str:
    """Install a package, and start no service; returns why it may still be missing."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return f"only root with apt-get installs the package {package}"
    makes_policy = not NO_SERVICES.exists()
    if makes_policy:
        NO_SERVICES.write_text("#!/bin/sh\nexit 101\n")
        NO_SERVICES.chmod(0o755)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        _apt("update", env)
        _apt("install", env, "-y", "--no-install-recommends", package)
    except (subprocess.SubprocessError, OSError):
        return f"apt-get can't install the package {package}"
    finally:
        if makes_policy:
            NO_SERVICES.unlink(missing_ok=True)
    return f"the package {package} does not bring it"


def _apt(command: str, env: dict[str, str], *arguments: str) -> None:
    wait = "-oDPkg::Lock::Timeout=120"
    subprocess.run(["apt-get", wait, "-qq", command, *arguments], env=env, check=True, capture_output=True, timeout=300)
