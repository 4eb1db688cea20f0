"""The state machine of jobs. Each transition is one statement over a list of jobs.

Postgres is the source of truth. `submit` inserts a job's row, `start` admits one of its dispatches and
raises its fence, and `finish` stores the result of an attempt. Only this package writes job rows.
"""

from jobsvc.jobs import schedules
from jobsvc.jobs.actions import cancel, remove, retry, unfinished
from jobsvc.jobs.attempts import JobTransition, cancel_requested, finish, recover_lapsed, renew, undo_starts
from jobsvc.jobs.awaiting import (
    Refused,
    Waiting,
    awaited_types,
    claim_awaiting,
    claim_offers,
    count_awaiting,
    find_refused,
    sort_offers,
)
from jobsvc.jobs.bulk import cancel_all, count_cancellable, count_retryable, retry_all, retry_listed
from jobsvc.jobs.changes import START, Position, Snapshot, changes, last_line, latest_lines, lines_after
from jobsvc.jobs.claims import (
    Dispatch,
    claim_due,
    claim_known,
    claim_missing,
    claim_next,
    claim_resumed,
    held_keys,
    release,
    release_due,
    seconds_to_next,
)
from jobsvc.jobs.cleanup import LOWEST, Pruned, prune
from jobsvc.jobs.counters import BOUNDS, Event, fold_tallies, tallied
from jobsvc.jobs.counts import depths, relay_lag
from jobsvc.jobs.expiry import expire
from jobsvc.jobs.filters import Filter
from jobsvc.jobs.idempotency import Answer, RequestKey, forget_keys, submit_once
from jobsvc.jobs.ids import current_time
from jobsvc.jobs.listing import Page, page
from jobsvc.jobs.outcomes import AttemptResult, Failure, completed, handed_back, lost
from jobsvc.jobs.overview import JobSummary, TypeStats, latest, paces
from jobsvc.jobs.queries import Versions, check_version, full_history, get, history
from jobsvc.jobs.queues import QueueState, pause, paused_queues, queue_states, resume
from jobsvc.jobs.reports import Chunk, append_lines, report
from jobsvc.jobs.start import StartedAttempt, start
from jobsvc.jobs.submit import NewJob, Submitted, store, submit, submit_each
from jobsvc.jobs.webhooks import announce_again

__all__ = [
    "BOUNDS",
    "LOWEST",
    "START",
    "Answer",
    "AttemptResult",
    "Chunk",
    "Dispatch",
    "Event",
    "Failure",
    "Filter",
    "JobSummary",
    "JobTransition",
    "NewJob",
    "Page",
    "Position",
    "Pruned",
    "QueueState",
    "Refused",
    "RequestKey",
    "Snapshot",
    "StartedAttempt",
    "Submitted",
    "TypeStats",
    "Versions",
    "Waiting",
    "announce_again",
    "append_lines",
    "awaited_types",
    "cancel",
    "cancel_all",
    "cancel_requested",
    "changes",
    "check_version",
    "claim_awaiting",
    "claim_due",
    "claim_known",
    "claim_missing",
    "claim_next",
    "claim_offers",
    "claim_resumed",
    "completed",
    "count_awaiting",
    "count_cancellable",
    "count_retryable",
    "current_time",
    "depths",
    "expire",
    "find_refused",
    "finish",
    "fold_tallies",
    "forget_keys",
    "full_history",
    "get",
    "handed_back",
    "held_keys",
    "history",
    "last_line",
    "latest",
    "latest_lines",
    "lines_after",
    "lost",
    "paces",
    "page",
    "pause",
    "paused_queues",
    "prune",
    "queue_states",
    "recover_lapsed",
    "relay_lag",
    "release",
    "release_due",
    "remove",
    "renew",
    "report",
    "resume",
    "retry",
    "retry_all",
    "retry_listed",
    "schedules",
    "seconds_to_next",
    "sort_offers",
    "start",
    "store",
    "submit",
    "submit_each",
    "submit_once",
    "tallied",
    "undo_starts",
    "unfinished",
]
