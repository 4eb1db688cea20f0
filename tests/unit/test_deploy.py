"""The files of deploy/ agree with the settings, the shutdown times and the runbook."""

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from jobsvc.config import Settings
from jobsvc.processes.timetable import EXIT_SECONDS
from jobsvc.serve import STOP_SECONDS
from tests.deploy import expressions, files

KUBERNETES = files.KUBERNETES
SHUTDOWN_SECONDS = Settings.model_fields["JOBSVC_SHUTDOWN_SECONDS"].default
API_SECONDS = STOP_SECONDS + 2
"""The API's longest time to end."""

SPARE_SECONDS = 2


def anchors(page: str) -> set[str]:
    """Return the anchors of a page's headings, as a forge makes them."""
    headings = re.findall(r"^#+ (.+)$", (files.ROOT / page).read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("rule", expressions.rules(), ids=lambda rule: rule["alert"])
def test_runbook_of_alert_exists(rule: dict[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert anchor in anchors(page)


def test_every_alert_has_a_test() -> None:
    tests = yaml.safe_load(files.RULE_TESTS.read_text())["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one.get("exp_alerts")}
    silent = {one["alertname"] for test in tests for one in test["alert_rule_test"] if not one.get("exp_alerts")}
    assert fired == silent == {rule["alert"] for rule in expressions.rules()}


def directives(unit: str) -> dict[str, str]:
    lines = (files.SYSTEMD / unit).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def test_grace_periods_of_units_fit() -> None:
    assert int(directives("jobsvc-api.service")["TimeoutStopSec"]) >= API_SECONDS + SPARE_SECONDS
    worker = directives("jobsvc-worker@.service")
    assert int(worker["TimeoutStopSec"]) >= SHUTDOWN_SECONDS + EXIT_SECONDS + SPARE_SECONDS
    assert worker["KillMode"] == "mixed"


def manifests(name: str) -> dict[str, Any]:
    """Return the objects of a file of the base, by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((KUBERNETES / "base" / name).read_text())}


def test_grace_periods_of_pods_fit() -> None:
    api = manifests("api.yaml")["Deployment"]["spec"]["template"]["spec"]
    [_, before] = api["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert api["terminationGracePeriodSeconds"] >= int(before) + API_SECONDS + SPARE_SECONDS
    worker = manifests("worker.yaml")["Deployment"]["spec"]["template"]["spec"]
    [given] = re.findall("JOBSVC_SHUTDOWN_SECONDS=(.*)", (KUBERNETES / "base/kustomization.yaml").read_text())
    assert worker["terminationGracePeriodSeconds"] >= float(given) + EXIT_SECONDS + SPARE_SECONDS


@pytest.mark.parametrize("name", ["api.yaml", "worker.yaml", "migrate.yaml"])
def test_pods_are_restricted(name: str) -> None:
    [workload] = [one for kind, one in manifests(name).items() if kind in ("Deployment", "Job")]
    pod = workload["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["args"][0] in ("api", "worker", "migrate")


@pytest.mark.parametrize(
    "path",
    [
        "systemd/jobsvc.env.example",
        "kubernetes/base/kustomization.yaml",
        "kubernetes/overlays/example/kustomization.yaml",
        "kubernetes/overlays/example/secret.example.env",
    ],
)
def test_named_settings_exist(path: str) -> None:
    named = re.findall(r"^(?: +- )?([A-Z_]+)=", (files.DEPLOY / path).read_text(), re.MULTILINE)
    assert named
    assert set(named) <= {*Settings.model_fields, "METRICS_KEY"}


def test_example_settings_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("systemd/jobsvc.env.example", "kubernetes/overlays/example/secret.example.env"):
        for name, value in re.findall("^([A-Z_]+)=(.*)", (files.DEPLOY / path).read_text(), re.MULTILINE):
            monkeypatch.setenv(name, value)
        Settings(_env_file=None)  # type: ignore[call-arg]


def test_proxies_allow_the_default_body() -> None:
    largest = Settings.model_fields["JOBSVC_MAX_BODY_BYTES"].default
    assert f"content-length) gt {largest} " in files.HAPROXY.read_text()
    assert f"client_max_body_size {largest // 1024**2}m;" in files.NGINX.read_text()


def test_missing_program_is_one_line() -> None:
    code = "from tests.deploy import __main__, files; files.find = lambda name: None; __main__.main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=files.ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    topics = re.findall("^lint: deploy/(.+) is not checked, since .+ is missing$", done.stdout, re.MULTILINE)
    assert topics == ["systemd", "kubernetes", "prometheus", "nginx", "haproxy"]
    assert len(done.stdout.splitlines()) == len(topics)
