"""/metrics from outside: one truth, however many processes made it, and some of them killed."""

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.support.service import Service, eventually


@pytest.fixture
def busy(service: Service) -> Service:
    service.worker(JOBSVC_WORKERS="2")
    return service


def scrape(service: Service, **wanted: str) -> dict[str, float]:
    """The samples that have these labels, by name."""
    reply = service.client.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["Content-Type"].startswith("text/plain; version=")
    samples = [sample for family in text_string_to_metric_families(reply.text) for sample in family.samples]
    return {one.name: one.value for one in samples if wanted.items() <= one.labels.items()}


def test_counters_are_summed_over_all_processes(busy: Service) -> None:
    done = [busy.post() for _ in range(8)]
    failed = busy.post(payload={"failAttempts": 9}, retry={"max": 1, "interval": 0})
    crashed = busy.post("CRASH", retry={"max": 1, "interval": 0})  # its process ends in the middle
    for job_id in (*done, crashed):
        busy.until(job_id, "COMPLETED")
    busy.until(failed, "FAILED")
    tests = scrape(busy, type="TEST_JOB", queue="default")
    assert tests["jobsvc_jobs_accepted_total"] == 9
    assert tests["jobsvc_jobs_started_total"] == tests["jobsvc_job_wait_seconds_count"] == 10
    assert tests["jobsvc_job_run_seconds_count"] == 10
    assert tests["jobsvc_jobs_retried_total"] == 1
    finished = {"type": "TEST_JOB", "queue": "default"}
    assert scrape(busy, status="COMPLETED", **finished)["jobsvc_jobs_finished_total"] == 8
    assert scrape(busy, status="FAILED", **finished)["jobsvc_jobs_finished_total"] == 1
    crash = scrape(busy, type="CRASH", queue="default")
    assert (crash["jobsvc_jobs_started_total"], crash["jobsvc_jobs_recovered_total"]) == (2, 1)


def test_queue_depth_is_shown(service: Service) -> None:
    service.post(delay=60)
    assert scrape(service, queue="default", status="SCHEDULED") == {"jobsvc_queue_jobs": 1}
    assert scrape(service, queue="high", status="PENDING") == {"jobsvc_queue_jobs": 0}
    assert scrape(service, queue="high")["jobsvc_queue_oldest_seconds"] == 0


def test_withheld_jobs_and_paused_queues_are_shown(service: Service) -> None:
    for _ in range(3):
        service.post(concurrencyKey="metrics", concurrencyLimit=1)
    eventually(lambda: scrape(service, queue="default")["jobsvc_queue_withheld_jobs"] == 2)
    assert service.client.post("/queues/low/pause").status_code == 200
    service.post(queue="low")
    eventually(lambda: scrape(service, queue="low")["jobsvc_queue_withheld_jobs"] == 1)
    assert [scrape(service, queue=queue)["jobsvc_queue_paused"] for queue in ("high", "default", "low")] == [0, 0, 1]


def test_jobs_without_a_handler_are_shown(service: Service) -> None:
    service.worker(JOBSVC_HANDLERS="tests.support.handlers.infra")
    service.post("CRASH")
    eventually(lambda: scrape(service, queue="default")["jobsvc_queue_no_handler_jobs"] == 1)
    assert scrape(service, queue="default")["jobsvc_queue_withheld_jobs"] == 0


def test_live_workers_are_counted_by_queue(service: Service) -> None:
    def workers() -> list[float]:
        return [scrape(service, queue=queue)["jobsvc_workers"] for queue in ("high", "default")]

    assert workers() == [0, 0]
    service.worker(JOBSVC_WORKERS="2")
    eventually(lambda: workers() == [2, 2])
    service.worker(JOBSVC_QUEUES="default", JOBSVC_HANDLERS="")
    eventually(lambda: workers() == [2, 3])


def test_state_of_redis_is_shown_and_metrics_work_without_it(apart: dict[str, str]) -> None:
    service = Service(apart)
    try:
        assert scrape(service, state="up") == {"jobsvc_redis": 1}
        assert scrape(service, state="taken") == {"jobsvc_redis": 0}
        with service.redis() as client:
            client.set("rq:jobsvc:jobsvc:owner", "another")
        eventually(lambda: scrape(service, state="taken") == {"jobsvc_redis": 1})
        assert scrape(service, state="up") == {"jobsvc_redis": 0}
        assert "jobsvc_workers" not in scrape(service, queue="high")
    finally:
        service.close()
    without = Service({**apart, "REDIS_URL": "redis://127.0.0.1:1/0"})
    try:
        assert scrape(without, state="down") == {"jobsvc_redis": 1}
        assert scrape(without, queue="high")["jobsvc_queue_oldest_seconds"] == 0
    finally:
        without.close()


def test_openmetrics_is_sent_on_request(service: Service) -> None:
    reply = service.client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert reply.headers["Content-Type"].startswith("application/openmetrics-text")
    assert {family.name for family in openmetrics.text_string_to_metric_families(reply.text)} >= {
        *("jobsvc_jobs_accepted", "jobsvc_jobs_started", "jobsvc_jobs_finished", "jobsvc_jobs_retried"),
        *("jobsvc_jobs_recovered", "jobsvc_job_wait_seconds", "jobsvc_job_run_seconds"),
        *("jobsvc_queue_jobs", "jobsvc_queue_oldest_seconds", "jobsvc_relay_lag_seconds"),
        *("jobsvc_queue_withheld_jobs", "jobsvc_queue_no_handler_jobs", "jobsvc_queue_paused"),
        *("jobsvc_workers", "jobsvc_redis", "jobsvc_build"),
    }
