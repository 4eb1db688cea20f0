"""A job that was changed while it waited starts only as changed, whatever RQ still holds of it."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Ground
from tests.support.service import WORKERS, Service, eventually


@pytest.fixture
def service(ground: Ground) -> Service:
    return ground.service


@pytest.fixture(params=sorted(WORKERS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def patch(service: Service, job_id: str, **body: Any) -> dict[str, Any]:
    reply = service.client.patch(f"/jobs/{job_id}", json=body)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def worker(service: Service, kind: str, *queues: str) -> None:
    """Start a worker that serves these queues only."""
    env = {"JOBSVC_QUEUES": ",".join(queues)} if kind == "pool" else {}
    if kind == "pool":
        service.worker(kind, **env)
    else:
        before = service.redis().scard("rq:workers")
        service.run(*WORKERS["stock"], *(f"jobsvc.{name}" for name in queues))
        eventually(lambda: service.redis().scard("rq:workers") > before)


def is_through(service: Service, queue: str = "default") -> None:
    """All that is queued so far in this queue has been taken and handled."""
    service.until(service.post(queue=queue), "COMPLETED", timeout=40)


def entry_in_the_list(service: Service, job_id: str, queue: str) -> None:
    service.redis().rpush(f"rq:queue:jobsvc.{queue}", job_id)


def entry_in_the_schedule(service: Service, job_id: str, queue: str) -> None:
    """RQ's scheduler enqueues it in its old queue, and writes that to the job's hash."""
    key = f"rq:scheduled:jobsvc.{queue}"
    service.redis().zadd(key, {job_id: int(time.time()) - 1})
    eventually(lambda: service.redis().zscore(key, job_id) is None, 90)


def old_hash(service: Service, job_id: str, queue: str) -> None:
    """The hash is as before the change, as if Redis had been restored from a copy."""
    service.redis().hset(f"rq:job:{job_id}", mapping={"origin": f"jobsvc.{queue}", "status": "queued", "timeout": 1})
    entry_in_the_list(service, job_id, queue)


STALE = [entry_in_the_list, entry_in_the_schedule, old_hash]


@pytest.mark.parametrize("leave", STALE)
def test_entry_of_the_old_queue_starts_nothing_on_a_worker_of_that_queue(
    service: Service, kind: str, leave: Callable[[Service, str, str], None]
) -> None:
    worker(service, kind, "high", "default")
    job_id = service.post(payload={"result": "old"}, delay=600)
    eventually(lambda: service.rq_places(job_id) == ["scheduled"])
    patch(service, job_id, queue="low", delay=None, payload={"result": "new"})
    eventually(lambda: service.rq_places(job_id, "low") == ["queue"])
    leave(service, job_id, "default")
    is_through(service)
    job = service.job(job_id)
    assert (job["status"], job["attempts"], job["startedAt"]) == ("PENDING", 0, None)
    worker(service, kind, "high", "low")
    assert service.until(job_id, "COMPLETED", timeout=40)["result"] == "new"
    assert service.job(job_id)["attempts"] == 1


@pytest.mark.parametrize("leave", [entry_in_the_list, old_hash])
def test_entry_starts_nothing_early(service: Service, kind: str, leave: Callable[[Service, str, str], None]) -> None:
    job_id = service.post(payload={"result": "old"})
    eventually(lambda: service.rq_places(job_id) == ["queue"])
    later = patch(service, job_id, delay=12, payload={"result": "new"})
    eventually(lambda: service.rq_places(job_id) == ["scheduled"])
    entry_in_the_list(service, job_id, "default")
    worker(service, kind, "high", "default")
    leave(service, job_id, "default")
    is_through(service)
    done = service.until(job_id, "COMPLETED", timeout=60)
    assert (done["result"], done["attempts"]) == ("new", 1)
    assert done["startedAt"] >= later["runAt"]


def test_queued_job_gets_its_new_timeout(service: Service, kind: str) -> None:
    job_id = service.post(payload={"durationMs": 3000, "result": 1}, timeout=0.5, retry={"max": 0})
    short = service.post(payload={"durationMs": 60_000}, timeout=3600, retry={"max": 0})
    eventually(lambda: service.rq_places(job_id) == ["queue"] and service.rq_places(short) == ["queue"])
    patch(service, job_id, timeout=200)
    patch(service, short, timeout=0.5, retry={"max": 1, "interval": 0})
    eventually(lambda: service.rq_job(job_id).timeout == 210)
    assert service.rq_places(job_id) == ["queue"]  # it keeps its place
    eventually(lambda: service.rq_job(short).retries_left == 1)
    worker(service, kind, "high", "default")
    assert service.until(job_id, "COMPLETED", timeout=40)["result"] == 1
    timed_out = service.until(short, "FAILED", timeout=40)
    assert (timed_out["error"]["type"], timed_out["attempts"]) == ("Timeout", 2)


def test_stock_worker_starts_no_entry_whose_timeout_is_too_short(service: Service) -> None:
    """RQ's worker would kill the process long before the job's new timeout."""
    job_id = service.post(payload={"result": 1}, timeout=3600)
    eventually(lambda: service.rq_places(job_id) == ["queue"])
    service.redis().hset(f"rq:job:{job_id}", "timeout", 11)
    worker(service, "stock", "default")
    assert service.until(job_id, "COMPLETED", timeout=40)["attempts"] == 1
    assert service.attempts(job_id)[0]["outcome"] == "completed"
    assert service.rq_job(job_id).timeout == 3610


@pytest.mark.parametrize("was_queued", [True, False])
def test_job_is_changed_while_redis_is_unavailable(ground: Ground, kind: str, was_queued: bool) -> None:
    service = ground.service
    job_id = service.post(payload={"result": "old"}, **({} if was_queued else {"delay": 600}))
    eventually(lambda: service.rq_places(job_id) == ["queue" if was_queued else "scheduled"])
    ground.valkey.stop()
    changed = patch(service, job_id, queue="low", delay=None, payload={"result": "new"}, timeout=500)
    assert (changed["queue"], changed["status"]) == ("low", "PENDING")
    ground.valkey.start()
    worker(service, kind, "high", "default")
    is_through(service)
    assert service.job(job_id)["attempts"] == 0
    worker(service, kind, "high", "low")
    done = service.until(job_id, "COMPLETED", timeout=60)
    assert (done["result"], done["attempts"]) == ("new", 1)


def test_withheld_jobs_start_in_their_new_queue(service: Service, kind: str) -> None:
    service.client.post("/queues/low/pause")
    worker(service, kind, "high")
    job_id = service.post(queue="low")
    [(before,)] = service.sql("SELECT dispatched_at IS NULL FROM jobs WHERE id = %s", job_id) or [(None,)]
    assert before is not None
    patch(service, job_id, queue="high")
    service.until(job_id, "COMPLETED", timeout=40)


def test_job_of_a_key_gets_its_slot_when_it_is_due_earlier(service: Service, kind: str) -> None:
    worker(service, kind, "high", "default")
    key = {"concurrencyKey": "changed", "concurrencyLimit": 1}
    first = service.post(payload={"durationMs": 1500}, **key)
    service.until(first, "PROCESSING", timeout=40)
    second = service.post(delay=600, **key)
    patch(service, second, delay=None, queue="high")
    third = service.post(**key)
    patch(service, third, delay=600)
    done = service.until(second, "COMPLETED", timeout=60)
    assert done["startedAt"] >= service.until(first, "COMPLETED")["finishedAt"]
    assert service.job(third)["status"] == "SCHEDULED"


def test_changes_and_starts_at_once_lose_nothing(service: Service, kind: str, tmp_path: Path) -> None:
    """Each change was before the start, and what ran is the last one; or it was refused with 409."""
    worker(service, kind, "high", "default")

    def race(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        job_id = service.post("NOTE", {"path": str(folder / "first")}, delay=0.1)
        last = "first"
        for turn in range(200):
            payload = {"path": str(folder / str(turn))}
            reply = service.client.patch(
                f"/jobs/{job_id}", json={"payload": payload, "delay": 0.05 if turn < 10 else 0}
            )
            if reply.status_code == 409:
                break
            assert reply.status_code == 200, reply.text
            last = str(turn)
        job = service.until(job_id, "COMPLETED", timeout=60)
        assert [path.name for path in folder.iterdir()] == [last]
        assert (job["attempts"], job["payload"]) == (1, {"path": str(folder / last)})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(race, range(12)))
