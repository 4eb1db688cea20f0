"""What the whole API needs: keys, tags, webhooks, schedules, paused queues, logs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MOMENT = TIMESTAMP(timezone=True)
UNFINISHED = "(status = 'PROCESSING' OR status IN ('PENDING', 'SCHEDULED', 'RETRYING'))"
WAITING = "status IN ('PENDING', 'SCHEDULED', 'RETRYING')"
HELD = f"{WAITING} AND dispatched_at = 'infinity'"
TAKES_PLACE = f"(status = 'PROCESSING' OR ({WAITING} AND dispatched_at >= due_at AND dispatched_at < 'infinity'))"
DISPATCHED_AT = "when it was last pushed to RQ; before due_at: not for this turn"
OUTCOMES = ["completed", "failed", "discarded", "timeout", "lost", "snoozed", "handed-back"]


def upgrade() -> None:
    for column in (
        sa.Column("tags", sa.ARRAY(sa.Text()), comment="null for none, which keeps them out of the index"),
        sa.Column("unique_key", sa.Text(), comment="at most one unfinished job of its type has it"),
        sa.Column("concurrency_key", sa.Text(), comment="at most concurrency_limit jobs with it run at once"),
        sa.Column("concurrency_limit", sa.Integer()),
        sa.Column("traceparent", sa.Text(), comment="W3C Trace Context of the request that made it"),
        sa.Column("cancel_requested_at", MOMENT, comment="when its running attempt was told to stop"),
        sa.Column(
            "version",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="grows with every change that is shown",
        ),
        sa.Column("webhook_url", sa.Text(), comment="told at each end of the job"),
        sa.Column("webhook_job_id", sa.Uuid(), comment="the job that tells of its last end"),
    ):
        op.add_column("jobs", column)
    op.create_index(
        "jobs_unique_key",
        "jobs",
        ["type", "unique_key"],
        unique=True,
        postgresql_where=sa.text(f"unique_key IS NOT NULL AND {UNFINISHED}"),
    )
    op.alter_column("jobs", "dispatched_at", comment=f"{DISPATCHED_AT}; infinity: held back")
    for name, columns, condition in (
        ("jobs_concurrency_key", ["concurrency_key"], f"concurrency_key IS NOT NULL AND {TAKES_PLACE}"),
        ("jobs_held_by_key", ["concurrency_key", "due_at"], f"concurrency_key IS NOT NULL AND {HELD}"),
        ("jobs_held_by_pause", ["queue", "due_at"], f"concurrency_key IS NULL AND {HELD}"),
        ("jobs_ended", ["queue", "status"], "finished_at IS NOT NULL"),
    ):
        op.create_index(name, "jobs", columns, postgresql_where=sa.text(condition))
    op.create_index("jobs_tags", "jobs", ["tags"], postgresql_using="gin", postgresql_where=sa.text("tags IS NOT NULL"))
    op.create_index("jobs_failed", "jobs", ["id"], postgresql_where=sa.text("status = 'FAILED'"))
    op.create_index("jobs_cancelled", "jobs", ["id"], postgresql_where=sa.text("status = 'CANCELLED'"))
    op.create_index(
        "jobs_type_queue",
        "jobs",
        ["type", "queue"],
        postgresql_using="brin",
        postgresql_ops={"type": "text_bloom_ops", "queue": "text_bloom_ops"},
        postgresql_with={"autosummarize": "on"},
    )
    op.add_column("attempts", sa.Column("logs", JSONB(), comment="[{time, level, message}], the newest; null for none"))
    _outcomes([*OUTCOMES[:-1], "cancelled", OUTCOMES[-1]])
    op.create_table(
        "queues",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("paused_at", MOMENT, comment="no job of it is started since then"),
        sa.PrimaryKeyConstraint("name", name=op.f("queues_pkey")),
    )
    op.create_table(
        "schedules",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("job", JSONB(), nullable=False, comment="the body of POST /jobs, as it was given"),
        sa.Column("new_job", JSONB(), nullable=False, comment="what that body asked for, all defaults filled in"),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("next_run_at", MOMENT, comment="the next tick; none while it isn't enabled"),
        sa.Column("last_run_at", MOMENT, comment="by a tick, or by hand"),
        sa.Column("last_job_id", sa.Uuid(), comment="the job then made, or the one that had its unique key"),
        sa.PrimaryKeyConstraint("name", name=op.f("schedules_pkey")),
    )
    op.create_index("schedules_due", "schedules", ["next_run_at"], postgresql_where=sa.text("enabled"))
    op.create_table(
        "idempotency_keys",
        sa.Column("owner", sa.Text(), nullable=False, comment="the API key's name; empty without keys"),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False, comment="of the method, the path and the body as JSON"),
        sa.Column("reply", JSONB(), nullable=False, comment="what was answered"),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("owner", "key", name=op.f("idempotency_keys_pkey")),
    )
    op.create_index("idempotency_keys_age", "idempotency_keys", ["created_at"])
    op.create_table(
        "tallies",
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), comment="where it put the job"),
        sa.Column("le", sa.Double(), comment="the bound of the bucket that the durations were in"),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), comment="the sum of the durations"),
        prefixes=["UNLOGGED"],
        comment="what /metrics counts; several rows of the same kind add up",
    )


def downgrade() -> None:
    for table in ("tallies", "idempotency_keys", "schedules", "queues"):
        op.drop_table(table)
    op.execute("DELETE FROM attempts WHERE outcome = 'cancelled'")
    _outcomes(OUTCOMES)
    op.drop_column("attempts", "logs")
    for index in (
        *("jobs_tags", "jobs_ended", "jobs_held_by_pause", "jobs_held_by_key", "jobs_concurrency_key"),
        *("jobs_unique_key", "jobs_type_queue", "jobs_cancelled", "jobs_failed"),
    ):
        op.drop_index(index)
    op.execute("UPDATE jobs SET dispatched_at = NULL WHERE dispatched_at = 'infinity'")
    op.alter_column("jobs", "dispatched_at", comment=DISPATCHED_AT)
    for column in ("webhook_job_id", "webhook_url", "version", "cancel_requested_at", "traceparent"):
        op.drop_column("jobs", column)
    for column in ("concurrency_limit", "concurrency_key", "unique_key", "tags"):
        op.drop_column("jobs", column)


def _outcomes(outcomes: list[str]) -> None:
    op.drop_constraint("attempts_outcome", "attempts")
    op.create_check_constraint(op.f("attempts_outcome"), "attempts", f"outcome IN ({', '.join(map(repr, outcomes))})")
