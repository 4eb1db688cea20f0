"""The state machine: every move of a job is made here, each by one statement over a list of jobs.

A job's row is the truth. `submit` makes it, `start` lets one delivery through and raises the job's
fence, and `finish` is the gate that every attempt leaves by. Nothing else writes a job's status.
"""

from jobsvc.jobs.attempts import (
    Failure,
    Outcome,
    Started,
    Verdict,
    finish,
    intervals_left,
    recover,
    renew,
    report,
    start,
)
from jobsvc.jobs.reading import get, history
from jobsvc.jobs.submission import NewJob, submit
from jobsvc.jobs.waiting import expire

__all__ = [
    "Failure",
    "NewJob",
    "Outcome",
    "Started",
    "Verdict",
    "expire",
    "finish",
    "get",
    "history",
    "intervals_left",
    "recover",
    "renew",
    "report",
    "start",
    "submit",
]
