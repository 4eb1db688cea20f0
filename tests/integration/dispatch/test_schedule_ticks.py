"""Schedules in real processes, with a database of their own."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.factories import sql
from tests.support.service import Service, eventually, free_port

NIGHTLY = {"cron": "30 2 * * *", "job": {}}


@pytest.fixture
def sweeping(request: pytest.FixtureRequest, clean: None) -> Iterator[Service]:
    """An API that sweeps every so many seconds."""
    service = Service({"JOBSVC_SWEEP_SECONDS": request.param})
    yield service
    service.close()


def shown_after_a_run(service: Service) -> dict[str, Any]:
    def check() -> Any:
        shown = service.client.get("/schedules/nightly").json()
        return shown["lastJobId"] and shown

    return dict(eventually(check, 20))


@pytest.mark.parametrize("sweeping", ["60"], indirect=True)
def test_tick_comes_on_time_and_not_at_the_next_sweep(sweeping: Service) -> None:
    sweeping.client.put("/schedules/nightly", json=NIGHTLY)
    sql("UPDATE schedules SET next_run_at = now() + interval '1.5 s'")
    due = sweeping.client.put("/schedules/nightly", json=NIGHTLY).json()["nextRunAt"]  # its relay polls again
    assert shown_after_a_run(sweeping)["lastRunAt"] >= due
    with sweeping.redis() as client:
        eventually(lambda: client.llen("rq:queue:jobsvc.default") == 1, 20)
        sweeping.client.post("/schedules/nightly/run")
        eventually(lambda: client.llen("rq:queue:jobsvc.default") == 2, 20)


@pytest.mark.parametrize("sweeping", ["1"], indirect=True)
def test_sweep_notices_a_change_by_another_process(sweeping: Service) -> None:
    sweeping.client.put("/schedules/nightly", json=NIGHTLY)
    for _ in range(3):
        sql("UPDATE schedules SET next_run_at = now(), last_job_id = NULL")
        shown_after_a_run(sweeping)


@pytest.mark.parametrize("sweeping", ["0.05"], indirect=True)
def test_several_processes_make_one_job_a_tick(sweeping: Service) -> None:
    for _ in range(2):
        sweeping.run(sys.executable, "-m", "jobsvc.serve", env={"PORT": str(free_port(None))})
    sweeping.worker()
    sweeping.client.put("/schedules/nightly", json=NIGHTLY)
    for round_ in range(1, 41):
        assert sql("UPDATE schedules SET next_run_at = now() - interval '1 hour'") == 1
        eventually(lambda: sql("SELECT 1 FROM schedules WHERE next_run_at > now()"), pause=0.005)
        assert sql("SELECT count(*) AS made FROM jobs")[0].made == round_
