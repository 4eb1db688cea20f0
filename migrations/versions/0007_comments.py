"""Comments of tables and columns in plainer words."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

COLUMNS = {
    ("jobs", "tags"): (
        "null for none, which keeps them out of the index",
        "null if there are none, so that the index has no entry",
    ),
    ("jobs", "unique_key"): (
        "at most one unfinished job of its type has it",
        "unique among the unfinished jobs of a type",
    ),
    ("jobs", "concurrency_key"): (
        "at most concurrency_limit jobs with it run at once",
        "at most concurrency_limit such jobs run at once",
    ),
    ("jobs", "traceparent"): (
        "W3C Trace Context of the request that made it",
        "W3C Trace Context of the request that created the job",
    ),
    ("jobs", "run_at"): (
        "not before, as the client asked",
        "earliest start that the client requested",
    ),
    ("jobs", "expires_at"): (
        "to be started by then, or failed",
        "the job fails if it has not started by then",
    ),
    ("jobs", "expiry_met"): (
        "expires_at of a job that has started in time: shown, but without effect",
        "expires_at of a job that started in time; only shown",
    ),
    ("jobs", "timeout"): (
        "seconds, for one attempt",
        "seconds per attempt",
    ),
    ("jobs", "retry_intervals"): (
        "seconds, one for each retry",
        "seconds before each retry",
    ),
    ("jobs", "due_at"): (
        "while it waits: when it may start",
        "earliest start of the next attempt",
    ),
    ("jobs", "dispatched_at"): (
        "when it was last pushed to RQ; before due_at: not for this turn; infinity: held back; year 9999: no handler",
        "last dispatch to RQ; before due_at: to be dispatched; infinity: withheld; year 9999: no handler",
    ),
    ("jobs", "fence"): (
        "the number of its last start",
        "number of the last start",
    ),
    ("jobs", "worker"): (
        "RQ's name of the worker that started it last",
        "RQ's name of the last attempt's worker",
    ),
    ("jobs", "started_at"): (
        "when its last attempt began",
        "start of the last attempt",
    ),
    ("jobs", "finished_at"): (
        "when it ended",
        "when the job ended",
    ),
    ("jobs", "cancel_requested_at"): (
        "when its running attempt was told to stop",
        "request to stop the running attempt",
    ),
    ("jobs", "version"): (
        "grows with every change that is shown",
        "grows with each visible change",
    ),
    ("jobs", "error"): (
        "type, message and attempt of the last one that failed",
        "error of the last failed attempt",
    ),
    ("jobs", "webhook_url"): (
        "told at each end of the job",
        "receives a request each time the job ends",
    ),
    ("jobs", "webhook_job_id"): (
        "the job that tells of its last end",
        "the job that sends the latest webhook request",
    ),
    ("attempts", "number"): (
        "what the handler saw as ctx.attempt",
        "value of ctx.attempt",
    ),
    ("attempts", "logs"): (
        "[{time, level, message}], those that came with its end; null for none",
        "[{time, level, message}] stored at the end; null if none",
    ),
    ("attempts", "last_line"): (
        "the number of the last of them, counted from 1; null: they are all there are",
        "last line in logs; null: logs has all lines",
    ),
    ("attempt_lines", "last_line"): (
        "the number of the last of these, counted from 1",
        "counted from 1",
    ),
    ("attempt_lines", "number"): (
        "what the handler saw as ctx.attempt",
        "value of ctx.attempt",
    ),
    ("queues", "paused_at"): (
        "no job of it is started since then",
        "start of the pause, in which no job is started",
    ),
    ("deployment", "id"): (
        "1: there is one row",
        "always 1",
    ),
    ("deployment", "owner"): (
        "stands in Redis, with the namespace that is its own",
        "id in Redis of the namespace's owner",
    ),
    ("schedules", "job"): (
        "the body of POST /jobs, as it was given",
        "body of POST /jobs as given by the client",
    ),
    ("schedules", "new_job"): (
        "what that body asked for, all defaults filled in",
        "the same job with all defaults filled in",
    ),
    ("schedules", "next_run_at"): (
        "the next tick; none while it isn't enabled",
        "next tick; null while disabled",
    ),
    ("schedules", "last_run_at"): (
        "by a tick, or by hand",
        "last run, by a tick or by request",
    ),
    ("schedules", "last_job_id"): (
        "the job then made, or the one that had its unique key",
        "job of the last run, or one with its unique key",
    ),
    ("idempotency_keys", "owner"): (
        "the API key's name; empty without keys",
        "name of the API key; empty without authentication",
    ),
    ("idempotency_keys", "fingerprint"): (
        "of the method, the path and the body as JSON",
        "hash of method, path and JSON body",
    ),
    ("idempotency_keys", "reply"): (
        "what was answered",
        "stored reply",
    ),
    ("tallies", "status"): (
        "where it put the job",
        "the job's new status",
    ),
    ("tallies", "le"): (
        "the bound of the bucket that the durations were in",
        "upper bound of the histogram bucket, in seconds",
    ),
    ("tallies", "seconds"): (
        "the sum of the durations",
        "sum of the durations",
    ),
}
"""The old and the new comment of each column."""

COUNTERS = (
    "what /metrics counts; several rows of the same kind add up",
    "counters of /metrics; rows with equal labels are added up",
)
"""The old and the new comment of the table of counters."""


def upgrade() -> None:
    for (table, column), (before, after) in COLUMNS.items():
        op.alter_column(table, column, comment=after, existing_comment=before)
    op.create_table_comment("tallies", COUNTERS[1], existing_comment=COUNTERS[0])


def downgrade() -> None:
    for (table, column), (before, after) in COLUMNS.items():
        op.alter_column(table, column, comment=before, existing_comment=after)
    op.create_table_comment("tallies", COUNTERS[0], existing_comment=COUNTERS[1])
