"""The program of `make lint` for deploy/: `python -m tests.deploy systemd kubernetes prometheus nginx haproxy`.

A topic whose program is missing is not checked, and one line says so.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from tests.deploy import files
from tests.deploy.expressions import all_of_them

MAX_EXPOSURE = "30"
"""Highest exposure that a unit may have, times 10."""

KUBERNETES_VERSIONS = ("1.27", "1.37")
"""The oldest version that the manifests are for, and the newest one whose schemas we have."""


def check_systemd(folder: Path) -> None:
    """Check the units, their exposure, and the user that they run as."""
    units = files.systemd(folder)
    _run("systemd-analyze", "verify", f"--root={folder}", *units, is_silent=True)
    for unit in units:
        _run("systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE}", f"--root={folder}", unit)
    _run("systemd-sysusers", "--dry-run", f"--root={folder}", str(files.SYSTEMD / "jobsvc.sysusers"))


def check_kubernetes(folder: Path) -> None:
    """Build the base and the example, and check each object against the schemas of Kubernetes."""
    for name in ("base", "overlays/example"):
        built = folder / f"{Path(name).name}.yaml"
        built.write_text(_run("kubectl", "kustomize", str(files.KUBERNETES / name)))
        for version in KUBERNETES_VERSIONS:
            command = [sys.executable, "-m", "kubernetes_validate", "--strict", "--quiet", "-k", version, str(built)]
            _run(*command, is_silent=True)


def check_prometheus(folder: Path) -> None:
    """Check the scrape configuration, the rules with their tests, and the queries of the dashboard and autoscaler."""
    _run("promtool", "check", "config", str(files.prometheus(folder, "localhost:3000", "key")))
    _run("promtool", "check", "rules", "--lint=all", "--lint-fatal", str(files.RULES))
    _run("promtool", "test", "rules", str(files.RULE_TESTS))
    queries = folder / "queries.yml"
    recorded = [{"record": "parsed", "expr": one.text, "labels": {"name": one.name}} for one in all_of_them()]
    queries.write_text(json.dumps({"groups": [{"name": "queries", "rules": recorded}]}))
    _run("promtool", "check", "rules", str(queries))


def check_nginx(folder: Path) -> None:
    """Check the configuration of nginx."""
    files.certificate(folder)
    path = files.nginx(folder, 8443, ["127.0.0.1:3001", "127.0.0.1:3002"])
    _run("nginx", "-t", "-q", "-e", "stderr", "-c", str(path), is_silent=True)


def check_haproxy(folder: Path) -> None:
    """Check the configuration of HAProxy."""
    files.certificate(folder)
    path = files.haproxy(folder, 8443, ["127.0.0.1:3001", "127.0.0.1:3002"])
    _run("haproxy", "-c", "-dW", "-f", str(path))


CHECKS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "systemd": (check_systemd, ("systemd-analyze", "systemd-sysusers")),
    "kubernetes": (check_kubernetes, ("kubectl",)),
    "prometheus": (check_prometheus, ("promtool",)),
    "nginx": (check_nginx, ("nginx", "openssl")),
    "haproxy": (check_haproxy, ("haproxy", "openssl")),
}
"""Each topic's check, and the programs that it needs."""


def _run(program: str, *arguments: str, is_silent: bool = False) -> str:
    """Run a program and return its output. Exits with that if it fails, or if it is to be silent and is not."""
    done = subprocess.run([files.find(program) or program, *arguments], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode or (is_silent and said.strip()):
        sys.exit(f"{program} {' '.join(arguments)}\n{said}")
    return done.stdout


def main() -> None:
    """Check the topics that the arguments name, all without any."""
    for topic in sys.argv[1:] or CHECKS:
        check, programs = CHECKS[topic]
        if missing := [one for one in programs if not files.find(one)]:
            print(f"lint: deploy/{topic} is not checked, since {' and '.join(missing)} is missing")
            continue
        if topic == "kubernetes" and not find_spec("kubernetes_validate"):
            sys.exit("lint: kubernetes-validate is missing: pip install -r requirements-dev.txt")
        with tempfile.TemporaryDirectory(prefix="jobsvc-lint-") as folder:
            check(Path(folder))
        print(f"lint: deploy/{topic} is fine")


if __name__ == "__main__":
    main()
