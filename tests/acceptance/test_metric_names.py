"""Every metric and label that the files of deploy/ and the pages name is in a service's /metrics."""

import re
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from tests.deploy.expressions import Expression, all_of_them
from tests.support.launcher import ROOT
from tests.support.service import Service

OPERATIONS = ROOT / "docs/operations.md"


@pytest.fixture(scope="module")
def samples() -> Iterator[list[Sample]]:
    """All samples of a service with jobs of the built-in type that have run."""
    service = Service({"JOBSVC_HANDLERS": ""})
    try:
        service.worker()
        service.until(service.post(), "COMPLETED")
        text = service.client.get("/metrics").text
        yield [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    finally:
        service.close()


@pytest.mark.parametrize("expression", all_of_them(), ids=lambda one: one.name)
def test_named_metrics_and_labels_exist(samples: list[Sample], expression: Expression) -> None:
    labels = {"job"}
    for metric, wanted in expression.metrics().items():
        found = [sample for sample in samples if sample.name == metric]
        assert found, metric
        for label, value in wanted.items():
            assert any(label in one.labels and value in ("", one.labels[label]) for one in found), (metric, label)
        labels |= set(found[0].labels)
    assert expression.groupings() <= labels


def test_documented_metrics_are_the_real_ones(samples: list[Sample]) -> None:
    text = OPERATIONS.read_text()
    rows = re.findall(r"^\| (`jobsvc_.+?) \| (.+?) \|", text, re.MULTILINE)
    documented = {
        name: set(re.findall(r"`(\w+)`", labels)) for names, labels in rows for name in re.findall(r"`(\w+)`", names)
    }
    real: dict[str, set[str]] = {}
    for sample in samples:
        name = re.sub("_(bucket|sum|count)$", "", sample.name)
        real.setdefault(name, set()).update(set(sample.labels) - {"le"})
    assert documented == real
    named = set(re.findall(r"\bjobsvc_(?:job|jobs|queue|relay|redis|workers|build)_\w+", text))
    assert named <= set(real)
