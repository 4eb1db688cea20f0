"""The phases of a running job."""

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, cast
from uuid import UUID

import pytest

from jobsvc.worker.running import Phase, Request, RunningJob

LEGAL = {
    (Phase.WAITING, Phase.RUNNING),
    (Phase.WAITING, Phase.FINISHED),
    (Phase.RUNNING, Phase.STOPPING),
    (Phase.RUNNING, Phase.KILLING),
    (Phase.RUNNING, Phase.FINISHED),
    (Phase.STOPPING, Phase.KILLING),
    (Phase.STOPPING, Phase.FINISHED),
    (Phase.KILLING, Phase.FINISHED),
}


class Child:
    """The memory of a child process in which one slot is used."""

    def __init__(self, called_at: float = 0.0) -> None:
        self._called_at = called_at

    def called_at(self, slot: int) -> float:
        return self._called_at


class Started:
    job_id = UUID(int=1)


def running_job(phase: Phase, called_at: float = 0.0) -> RunningJob:
    return RunningJob(cast(Any, Started), 0, cast(Any, Child(called_at)), 0.0, SimpleQueue(), phase)


@pytest.mark.parametrize("to", Phase)
@pytest.mark.parametrize("phase", Phase)
def test_only_legal_moves_are_made(phase: Phase, to: Phase) -> None:
    job = running_job(phase)
    if (phase, to) in LEGAL:
        job.move(to)
        assert job.phase is to
    else:
        with pytest.raises(RuntimeError, match=f"{phase.name} to {to.name}"):
            job.move(to)
        assert job.phase is phase


@pytest.mark.parametrize("phase", Phase)
def test_a_job_runs_once_its_handler_was_called(phase: Phase) -> None:
    assert running_job(phase).update_phase() is phase
    expected = Phase.RUNNING if phase is Phase.WAITING else phase
    assert running_job(phase, called_at=1.0).update_phase() is expected


@pytest.mark.parametrize(
    ("post", "flags"),
    [
        (RunningJob.on_cancel, (True, False, False)),
        (lambda job: job.post(Request.STOP_BY_RQ), (True, True, False)),
        (RunningJob.on_lost, (False, False, True)),
    ],
)
@pytest.mark.parametrize("phase", Phase)
def test_a_request_has_no_effect_before_it_is_applied_or_after_the_end(
    phase: Phase, post: Callable[[RunningJob], None], flags: tuple[bool, bool, bool]
) -> None:
    job = running_job(phase)
    post(job)
    assert (job.is_cancel_requested, job.is_stopped_by_rq, job.has_lost_lease) == (False, False, False)
    posted, request = job.requests.get_nowait()
    assert posted is job
    job.apply(request)
    expected = (False, False, False) if phase is Phase.FINISHED else flags
    assert (job.is_cancel_requested, job.is_stopped_by_rq, job.has_lost_lease) == expected
    assert job.phase is phase
