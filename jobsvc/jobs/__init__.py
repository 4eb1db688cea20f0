"""The state machine: every move of a job is made here, each by one statement over a list of jobs.

A job's row is the truth. `submit` makes it, `start` lets one dispatch through and raises the job's
fence, and `finish` is the gate that every attempt leaves by. Nothing else writes a job's row.
"""

from jobsvc.jobs.attempts import (
    AttemptEnd,
    Failure,
    Started,
    Verdict,
    finish,
    recover_killed,
    recover_lapsed,
    renew,
    report,
    start,
)
from jobsvc.jobs.dispatching import (
    Dispatch,
    claim_due,
    claim_missing,
    claim_next,
    claim_resumed,
    held_keys,
    release,
    seconds_to_next,
)
from jobsvc.jobs.expiry import expire
from jobsvc.jobs.filters import Filter
from jobsvc.jobs.queues import QueueState, pause, paused_queues, queue_states, resume
from jobsvc.jobs.reading import get, history
from jobsvc.jobs.submission import NewJob, Submitted, store, submit

__all__ = [
    "AttemptEnd",
    "Dispatch",
    "Failure",
    "Filter",
    "NewJob",
    "QueueState",
    "Started",
    "Submitted",
    "Verdict",
    "claim_due",
    "claim_missing",
    "claim_next",
    "claim_resumed",
    "expire",
    "finish",
    "get",
    "held_keys",
    "history",
    "pause",
    "paused_queues",
    "queue_states",
    "recover_killed",
    "recover_lapsed",
    "release",
    "renew",
    "report",
    "resume",
    "seconds_to_next",
    "start",
    "store",
    "submit",
]
