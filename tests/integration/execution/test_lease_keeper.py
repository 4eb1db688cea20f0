"""Leases of running attempts, and requests that the keeper passes on."""

import time
from dataclasses import dataclass, field

from jobsvc import jobs
from jobsvc.config import settings
from jobsvc.execution.lease_keeper import LeaseKeeper
from jobsvc.jobs import StartedAttempt, completed
from tests.integration.factories import lapse, sql, started


@dataclass(eq=False)
class Holder:
    """An attempt that is due for a renewal."""

    started: StartedAttempt = field(default_factory=started)
    since: float = field(default_factory=lambda: time.monotonic() - settings().JOBSVC_LEASE_SECONDS / 2)
    is_running: bool = True
    cancels: int = 0
    losses: int = 0

    def on_cancel(self) -> None:
        self.cancels += 1

    def on_lost(self) -> None:
        self.losses += 1


def seconds_left(holder: Holder) -> float:
    [(left,)] = sql(
        "SELECT extract(epoch FROM lease_expires_at - now()) FROM jobs WHERE id = :id", id=holder.started.job_id
    )
    return float(left)


def test_lease_is_renewed_at_a_third_of_its_length() -> None:
    old, young = Holder(), Holder(since=time.monotonic())
    for one in (old, young):
        lapse(one.started.job_id)
    LeaseKeeper(lambda: [old, young]).check()
    assert seconds_left(old) > settings().JOBSVC_LEASE_SECONDS - 5
    assert seconds_left(young) < 0
    assert (old.losses, young.losses) == (0, 0)


def test_renewed_lease_is_not_renewed_again_at_once() -> None:
    holder = Holder()
    keeper = LeaseKeeper(lambda: [holder])
    keeper.check()
    lapse(holder.started.job_id)
    keeper.check()
    assert seconds_left(holder) < 0


def test_lost_lease_is_reported_once_and_asked_about_no_more() -> None:
    lost, kept = Holder(), Holder()
    jobs.finish([completed(lost.started.job_id, lost.started.fence)])
    keeper = LeaseKeeper(lambda: [lost, kept])
    for _ in range(2):
        keeper.check()
    assert (lost.losses, kept.losses) == (1, 0)


def test_refused_renewal_of_a_finished_attempt_is_no_loss() -> None:
    holder = Holder(is_running=False)
    jobs.finish([completed(holder.started.job_id, holder.started.fence)])
    LeaseKeeper(lambda: [holder]).check()
    assert holder.losses == 0


def test_cancel_request_reaches_its_attempt_alone() -> None:
    cancelled, other, young = Holder(), Holder(), Holder(since=time.monotonic() + 60)
    for one in (cancelled, young):
        jobs.cancel(one.started.job_id)
    LeaseKeeper(lambda: [cancelled, other, young]).check()
    assert (cancelled.cancels, other.cancels, young.cancels) == (1, 0, 0)
