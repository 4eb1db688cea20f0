"""Prometheus scrapes a service with jobs by the files of deploy/: each query has data, each rule works, alerts fire."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy import files
from tests.deploy.expressions import Expression, of_autoscaler, of_dashboard, of_rules, rules
from tests.infra.debian import program
from tests.support.service import Process, Service, eventually, free_port

KEY = "k-prometheus"


class Prometheus:
    """A running Prometheus."""

    def __init__(self, folder: Path, target: str) -> None:
        command, address = program("prometheus"), f"127.0.0.1:{free_port(None)}"
        config = files.prometheus(folder, target, KEY)
        options = [f"--config.file={config}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"]
        self.process = Process(command, *options)
        self.client = httpx.Client(base_url=f"http://{address}/api/v1", timeout=30)

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer."""
        assert self.process.popen.poll() is None, self.process.output
        answer = self.client.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def query(self, text: str) -> list[Any]:
        """Return the series that an expression has now."""
        return list(self.ask("/query", query=text)["result"])

    def scrapes(self) -> bool:
        try:
            return bool(self.query("up == 1 and on () jobsvc_queue_jobs"))
        except httpx.TransportError:
            return False

    def close(self) -> None:
        self.client.close()
        self.process.kill()


@pytest.fixture(scope="module")
def prometheus(apart: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, and a service whose jobs have completed, failed and lost their worker while it scraped."""
    keys = f"test:admin:{KEY}-of-test,prometheus:read:{KEY}"
    service = Service({**apart, "JOBSVC_API_KEYS": keys}, key=f"{KEY}-of-test")
    made = Prometheus(tmp_path_factory.mktemp("prometheus"), f"127.0.0.1:{service.port}")
    try:
        service.worker()
        eventually(made.scrapes, 30)
        failing = [service.post(payload={"failAttempts": 9}, retry={"max": 1, "interval": 0}) for _ in range(6)]
        crashed = service.post("CRASH", retry={"max": 1, "interval": 0})
        service.until(crashed, "COMPLETED")
        for job_id in failing:
            service.until(job_id, "FAILED")
        yield made
    finally:
        made.close()
        service.close()


@pytest.mark.parametrize("query", [*of_dashboard(), *of_autoscaler()], ids=lambda one: one.name)
def test_query_has_data(prometheus: Prometheus, query: Expression) -> None:
    eventually(lambda: prometheus.query(query.text), 30, 0.2)


@pytest.mark.parametrize("rule", [*of_rules()], ids=lambda one: one.name)
def test_all_that_a_rule_reads_exists(prometheus: Prometheus, rule: Expression) -> None:
    for selector in rule.selectors():
        eventually(lambda selector=selector: prometheus.query(selector), 30, 0.2)


def test_rules_are_evaluated_without_errors(prometheus: Prometheus) -> None:
    def evaluated() -> list[Any]:
        [group] = prometheus.ask("/rules")["groups"]
        return [rule for rule in group["rules"] if rule["health"] != "unknown"]

    eventually(lambda: len(evaluated()) == len(rules()), 30)
    assert {rule["name"]: rule["health"] for rule in evaluated()} == {rule["alert"]: "ok" for rule in rules()}


def test_alerts_on_failed_and_lost_jobs_fire(prometheus: Prometheus) -> None:
    def active() -> set[tuple[str, str, str]]:
        alerts = prometheus.ask("/alerts")["alerts"]
        return {(one["labels"]["alertname"], one["labels"].get("type", ""), one["state"]) for one in alerts}

    eventually(lambda: ("JobsvcJobsRecovered", "CRASH", "firing") in active(), 30)
    # It fires after a minute.
    eventually(lambda: any(alert[:2] == ("JobsvcJobsFail", "TEST_JOB") for alert in active()), 30)
    assert {alert[0] for alert in active()} <= {"JobsvcJobsRecovered", "JobsvcJobsFail"}
