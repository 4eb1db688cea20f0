"""The state machine of jobs. Each transition is one statement over a list of jobs.

Postgres is the source of truth. `submit` inserts a job's row, `start` admits one of its dispatches and
raises its fence, and `finish` stores the result of an attempt. Only this package writes job rows.

Functions that use Postgres commit before they return, and raise StoreUnavailable while it is unavailable. Ids of
deleted jobs are ignored in lists of ids.
"""

from jobsvc.jobs import schedules
from jobsvc.jobs.actions import cancel, remove, retry, unfinished
from jobsvc.jobs.amend import Amended, Changes, amend
from jobsvc.jobs.attempt_results import AttemptResult, Failure, completed, lost, returned_uncounted
from jobsvc.jobs.bulk import (
    MAX_WALK,
    Walk,
    cancel_all,
    count_cancellable,
    count_removable,
    count_retryable,
    remove_all,
    retry_all,
    retry_listed,
)
from jobsvc.jobs.changes import START, Position, Snapshot, changes, last_line, latest_lines, lines_after
from jobsvc.jobs.claims import (
    Dispatch,
    EntryChange,
    claim_due_jobs,
    claim_known,
    claim_missing,
    claim_resumed,
    release,
    release_due,
    seconds_to_next,
)
from jobsvc.jobs.cleanup import LOWEST, expire, prune
from jobsvc.jobs.conflicts import OnConflict, Submitted
from jobsvc.jobs.counter_history import LONGEST_SECONDS, MINUTE, compact_history
from jobsvc.jobs.counters import BOUNDS, Event, fold_counters, read_counters
from jobsvc.jobs.counts import MAX_COUNTED, Counted, count_by_status, count_newer
from jobsvc.jobs.dependencies import MAX_DEPENDENCIES, Dependency, in_order_of_dependencies
from jobsvc.jobs.dependency_results import completed_dependencies, dependency_result
from jobsvc.jobs.failures import FailureGroup, FailureGroups, failure_groups, recent_failure_groups
from jobsvc.jobs.filters import Filter
from jobsvc.jobs.finish import JobTransition, finish
from jobsvc.jobs.graph import Graph, Neighbour, read_graph
from jobsvc.jobs.idempotency import RequestKey, delete_old_keys, submit_once
from jobsvc.jobs.ids import current_time
from jobsvc.jobs.leases import cancel_requested, recover_lapsed, renew
from jobsvc.jobs.pending_releases import NO_EDGE, find_unreleased, release_pending
from jobsvc.jobs.queries import MOST_SEARCHED, Versions, check_version, find_by_id_end, get, history, page
from jobsvc.jobs.queue_sizes import QueueCounts, queue_counts
from jobsvc.jobs.queues import QueueState, pause, paused_queues, queue_states, resume
from jobsvc.jobs.rate_starts import prune_starts
from jobsvc.jobs.registration import ensure_registered, register, register_at_start
from jobsvc.jobs.reports import Chunk, append_lines, report
from jobsvc.jobs.schedules import next_ticks
from jobsvc.jobs.situation import MOST_BEFORE, Place, Situation, read_situation
from jobsvc.jobs.slots import MAX_CONCURRENCY_LIMIT, Lane
from jobsvc.jobs.start import StartedAttempt, start, undo_starts
from jobsvc.jobs.stats import depths, relay_lag
from jobsvc.jobs.submit import NewJob, submit, submit_each
from jobsvc.jobs.summaries import JobSummary, SummaryPage, find, latest, page_of_summaries
from jobsvc.jobs.time_series import Durations, History, Numbers, Series, longest_step, read_history, step_unit
from jobsvc.jobs.unknown_types import (
    Refused,
    awaited_types,
    claim_awaiting,
    claim_offers,
    count_awaiting,
    find_refused,
    sort_offers,
)
from jobsvc.jobs.webhooks import Delivery, announce_again, deliveries
from jobsvc.jobs.withheld import (
    Claimed,
    Wait,
    claim_due,
    claim_next,
    claim_withheld,
    withheld_concurrency_keys,
    withheld_rate_keys,
)
