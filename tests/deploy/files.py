"""The files of deploy/, changed so that they run on this machine: other addresses, ports and certificates."""

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SYSTEMD, KUBERNETES, PROMETHEUS = DEPLOY / "systemd", DEPLOY / "kubernetes", DEPLOY / "prometheus"
RULES, RULE_TESTS, SCRAPING = (
    PROMETHEUS / name for name in ("jobsvc-rules.yml", "jobsvc-rules.test.yml", "prometheus.yml")
)
DASHBOARD = DEPLOY / "grafana" / "jobsvc.json"
NGINX, HAPROXY = DEPLOY / "nginx" / "jobsvc.conf", DEPLOY / "haproxy" / "haproxy.cfg"

API_HOST = re.compile(r"192\.0\.2\.1[12]:3000")
"""The API hosts that the files name."""

AROUND_NGINX = """
daemon off; pid {folder}/pid; error_log stderr; {user}
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {site}
}}
"""


def find(program: str) -> str | None:
    """Return the path of a program; None if it isn't installed."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def _replaced(text: str, changes: dict[str, str]) -> str:
    for old, new in changes.items():
        assert old in text, f"the file has no {old!r}"
        text = text.replace(old, new)
    return text


def _at(apis: list[str], text: str) -> str:
    """Return the text with these API hosts in place of those that it names, which are as many."""
    hosts = iter(apis)
    return API_HOST.sub(lambda _: next(hosts), text)


def certificate(folder: Path) -> Path:
    """Make a certificate for localhost with its key: cert.pem, key.pem, both.pem. Returns the first one."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", "key.pem", "-out", "cert.pem"], cwd=folder, check=True, capture_output=True)
    (folder / "both.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return folder / "cert.pem"


def nginx(folder: Path, port: int, apis: list[str]) -> Path:
    """Write a configuration of nginx with our file, which listens on this port of 127.0.0.1; returns its path."""
    changes = {
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "/etc/ssl/jobsvc/fullchain.pem": str(folder / "cert.pem"),
        "/etc/ssl/jobsvc/key.pem": str(folder / "key.pem"),
    }
    path = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers can't write to the folder
    site = _at(apis, _replaced(NGINX.read_text(), changes))
    path.write_text(AROUND_NGINX.format(folder=folder, user=user, site=site))
    return path


def haproxy(folder: Path, port: int, apis: list[str]) -> Path:
    """Write our configuration of HAProxy, which listens on this port of 127.0.0.1; returns its path."""
    changes = {"bind :443 ": f"bind 127.0.0.1:{port} ", "/etc/ssl/jobsvc/fullchain-and-key.pem": f"{folder}/both.pem"}
    path = folder / "haproxy.cfg"
    path.write_text(_at(apis, _replaced(HAPROXY.read_text(), changes)))
    return path


def prometheus(folder: Path, target: str, key: str) -> Path:
    """Write our configuration of Prometheus, quicker, for one target with a key; returns its path."""
    (folder / "key").write_text(key)
    changes = {
        "interval: 15s": "interval: 500ms",
        "/etc/prometheus/jobsvc.key": str(folder / "key"),
        "jobs.example.com:3000": target,
    }
    shutil.copy(RULES, folder)
    path = folder / "prometheus.yml"
    path.write_text(_replaced(SCRAPING.read_text(), changes))
    return path


def systemd(folder: Path) -> list[str]:
    """Make a root folder with the units and all that they name; returns the names of the units."""
    units, program = folder / "etc/systemd/system", folder / "opt/jobsvc/bin/jobsvc"
    shutil.copytree(SYSTEMD, units, ignore=shutil.ignore_patterns("*.sysusers", "*.example"))
    targets = folder / "lib/systemd/system"
    targets.mkdir(parents=True)
    for target in Path("/lib/systemd/system").glob("*.target"):
        shutil.copy(target, targets)
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return sorted(one.name.replace("@.", "@1.") for one in units.glob("*.service"))
