"""The PromQL in the files of deploy/, and what it names."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from tests.deploy import files

SELECTOR = re.compile(r"\b(jobsvc_[a-z_]+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")


class Expression(NamedTuple):
    """A PromQL expression, and the file and title that it has."""

    name: str
    text: str

    def metrics(self) -> dict[str, dict[str, str]]:
        """Return the metrics that it names, and the labels by which it selects, with a value if that is equal."""
        found: dict[str, dict[str, str]] = {}
        for metric, matchers in SELECTOR.findall(GROUPING.sub("", self.text)):
            wanted = {label: value if sign == "=" else "" for label, sign, value in MATCHER.findall(matchers)}
            found[metric] = {**found.get(metric, {}), **wanted}
        return found

    def selectors(self) -> set[str]:
        """Return the instant vectors that it reads, without functions."""
        return {match[0] for match in SELECTOR.finditer(GROUPING.sub("", self.text))}

    def groupings(self) -> set[str]:
        """Return the labels by which it groups and joins."""
        return {label.strip() for labels in GROUPING.findall(self.text) for label in labels.split(",") if label.strip()}


def rules() -> list[dict[str, Any]]:
    """Return the alert rules."""
    [group] = yaml.safe_load(files.RULES.read_text())["groups"]
    return list(group["rules"])


def of_rules() -> Iterator[Expression]:
    """Yield the expressions of the alert rules."""
    for rule in rules():
        yield Expression(rule["alert"], rule["expr"])


def of_dashboard() -> Iterator[Expression]:
    """Yield the queries of the dashboard as Grafana sends them, for all queues."""
    dashboard = json.loads(files.DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield _filled(f"{panel['title']} {target['refId']}", target["expr"])
    for annotation in dashboard["annotations"]["list"]:
        yield _filled(annotation["name"], annotation["expr"])


def _filled(name: str, text: str) -> Expression:
    text = text.replace("$__rate_interval", "1m").replace("$queue", ".*")
    assert "$" not in text, f"{name}: a variable is not known"
    return Expression(name, text)


def of_autoscaler() -> Iterator[Expression]:
    """Yield the queries of prometheus-adapter for the autoscaler's metrics."""
    [rule] = yaml.safe_load((files.PROMETHEUS / "adapter-rules.yml").read_text())["rules"]["external"]
    scaler = yaml.safe_load((files.KUBERNETES / "base" / "autoscaler.yaml").read_text())
    for metric in scaler["spec"]["metrics"]:
        wanted = metric["external"]["metric"]
        assert wanted["name"] == rule["name"]["as"]
        labels = ",".join(f'{name}="{value}"' for name, value in wanted["selector"]["matchLabels"].items())
        query = rule["metricsQuery"].replace("<<.Series>>", rule["seriesQuery"]).replace("<<.LabelMatchers>>", labels)
        yield Expression(f"autoscaler {labels}", query)


def all_of_them() -> list[Expression]:
    """Return all expressions."""
    return [*of_rules(), *of_dashboard(), *of_autoscaler()]
