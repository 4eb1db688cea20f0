"""A job that RQ and the relays deliver twice runs once."""

import subprocess
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from rq.job import JobStatus
from rq.registry import StartedJobRegistry

from tests.faults.conftest import Ground
from tests.support.launcher import ROOT, RQ
from tests.support.service import Service, eventually


@pytest.fixture
def service(ground: Ground) -> Service:
    return ground.service


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def runs(notes: Path) -> Counter[str]:
    return Counter(line.split()[0] for line in notes.read_text().splitlines())


def is_through(service: Service) -> None:
    """All that is queued so far has been taken, by as many workers as there are."""
    eventually(lambda: service.redis().llen("rq:queue:jobsvc.default") == 0)
    for job_id in [service.post() for _ in range(4)]:
        service.until(job_id, "COMPLETED")


def an_id_twice_in_the_list(service: Service, job_id: str) -> None:
    service.redis().rpush("rq:queue:jobsvc.default", job_id, job_id)


def a_job_that_was_made_again(service: Service, job_id: str) -> None:
    """As a relay does that believes it lost."""
    service.rq_job(job_id).save()
    service.redis().hset(f"rq:job:{job_id}", "status", "queued")
    service.redis().rpush("rq:queue:jobsvc.default", job_id)


def abandoned(service: Service, job_id: str) -> None:
    """RQ's maintenance takes every execution for abandoned, and queues or schedules what has retries left."""
    StartedJobRegistry("default", connection=service.redis(), serializer=service.rq_job(job_id).serializer).cleanup(
        time.time() + 1000
    )


def rqs_scheduler(service: Service, job_id: str) -> None:
    service.redis().zadd("rq:scheduled:jobsvc.default", {job_id: int(time.time()) - 1})
    eventually(lambda: service.redis().zscore("rq:scheduled:jobsvc.default", job_id) is None, 90)


DELIVERIES = [an_id_twice_in_the_list, a_job_that_was_made_again, abandoned, rqs_scheduler]


@pytest.mark.parametrize("deliver", DELIVERIES)
def test_duplicate_entry_of_a_running_job_runs_nothing(
    service: Service, notes: Path, deliver: Callable[[Service, str], None]
) -> None:
    service.worker(JOBSVC_WORKERS="3")
    job_id = service.post("NOTE", {"path": str(notes), "seconds": 5}, retry={"max": 3, "interval": 0})
    service.until(job_id, "PROCESSING")
    deliver(service, job_id)
    is_through(service)
    eventually(lambda: service.rq_job(job_id).get_status() == JobStatus.STARTED)
    assert service.job(job_id)["status"] == "PROCESSING"
    service.until(job_id, "COMPLETED")
    is_through(service)
    assert runs(notes) == {job_id: 1}
    assert service.job(job_id)["attempts"] == 1
    eventually(lambda: service.rq_places(job_id) == ["finished"])
    assert service.rq_job(job_id).get_status() == JobStatus.FINISHED
    assert service.rq_job(job_id).return_value() == 1


@pytest.mark.parametrize("deliver", [an_id_twice_in_the_list, a_job_that_was_made_again, rqs_scheduler])
def test_duplicate_entry_of_a_waiting_retry_runs_nothing(
    service: Service, notes: Path, deliver: Callable[[Service, str], None]
) -> None:
    service.worker(JOBSVC_WORKERS="3")
    job_id = service.post("NOTE", {"path": str(notes), "fails": 1}, retry={"max": 3, "interval": 5})
    eventually(
        lambda: service.rq_places(job_id) == ["scheduled"]
    )  # RQ is updated after Postgres, and would say so last
    deliver(service, job_id)
    is_through(service)
    assert service.job(job_id)["status"] == "RETRYING"
    service.until(job_id, "COMPLETED")
    is_through(service)
    first, second = service.attempts(job_id)
    waited = datetime.fromisoformat(second["startedAt"]) - datetime.fromisoformat(first["finishedAt"])
    # Not before its time, nor much later, as if the relay had taken it for queued.
    assert timedelta(seconds=5) <= waited < timedelta(seconds=7)
    assert runs(notes) == {job_id: 2}
    eventually(lambda: service.rq_places(job_id) == ["finished"])


@pytest.mark.parametrize(("fails", "status"), [(0, JobStatus.FINISHED), (9, JobStatus.FAILED)])
@pytest.mark.parametrize("deliver", [an_id_twice_in_the_list, a_job_that_was_made_again, rqs_scheduler])
def test_duplicate_entry_of_a_finished_job_runs_nothing(
    service: Service, notes: Path, deliver: Callable[[Service, str], None], fails: int, status: JobStatus
) -> None:
    service.worker()
    job_id = service.post("NOTE", {"path": str(notes), "fails": fails}, retry={"max": 0})
    place = status.value
    eventually(lambda: service.rq_places(job_id) == [place])
    deliver(service, job_id)
    is_through(service)
    assert runs(notes) == {job_id: 1}
    eventually(lambda: service.rq_places(job_id) == [place])
    job = service.rq_job(job_id)
    assert (job.get_status(), len(job.results())) == (status, 1)
    assert service.redis().ttl(job.key) > 0


def test_rq_requeue_of_a_failed_job_runs_nothing(service: Service, notes: Path) -> None:
    service.worker()
    job_id = service.post("NOTE", {"path": str(notes), "fails": 9}, retry={"max": 0})
    eventually(lambda: service.rq_places(job_id) == ["failed"])
    url = service.env["REDIS_URL"]
    command = [RQ, "requeue", "-u", url, "-S", "json", "--queue", "jobsvc.default", job_id]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    is_through(service)
    assert runs(notes) == {job_id: 1}
    assert service.rq_job(job_id).get_status() == JobStatus.FAILED


def test_jobs_run_once_with_many_relays_and_schedulers(service: Service, notes: Path) -> None:
    """Three pools sweep beside the API, and each has schedulers: what comes due for all of them at once runs once."""
    for _ in range(2):
        service.worker(JOBSVC_WORKERS="2", JOBSVC_SWEEP_SECONDS="0.1")
    payload = {"path": str(notes), "fails": 1}
    posted = [service.post("NOTE", payload, delay=3, retry={"max": 1, "interval": 1}) for _ in range(60)]
    for job_id in posted:
        assert service.until(job_id, "COMPLETED", timeout=60)["attempts"] == 2
    assert runs(notes) == Counter(dict.fromkeys(posted, 2))


def test_jobs_run_once_though_redis_is_wiped_repeatedly(service: Service, notes: Path) -> None:
    service.worker(JOBSVC_WORKERS="2", JOBSVC_SWEEP_SECONDS="0.1")
    posted = []
    for _ in range(5):
        posted += [service.post("NOTE", {"path": str(notes), "seconds": 0.05}) for _ in range(10)]
        service.redis().flushall()
    for job_id in posted:
        assert service.until(job_id, "COMPLETED", timeout=60)["attempts"] == 1
    assert runs(notes) == Counter(posted)
