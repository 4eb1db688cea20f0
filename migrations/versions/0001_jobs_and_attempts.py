"""Jobs and their attempts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WAITING = "status IN ('PENDING', 'SCHEDULED', 'RETRYING')"


def upgrade() -> None:
    moment = TIMESTAMP(timezone=True)
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("payload", JSONB(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", moment, server_default=sa.text("now()"), nullable=False),
        sa.Column("run_at", moment, comment="not before, as the client asked"),
        sa.Column("expires_at", moment, comment="to be started by then, or failed"),
        sa.Column("timeout", sa.Double(), nullable=False, comment="seconds, for one attempt"),
        sa.Column("retry_intervals", sa.ARRAY(sa.Double()), nullable=False, comment="seconds, one for each retry"),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("due_at", moment, nullable=False, comment="while it waits: when it may start"),
        sa.Column("dispatched_at", moment, comment="when it was last pushed to RQ; before due_at: not for this turn"),
        sa.Column(
            "fence",
            sa.BigInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="the number of its last start",
        ),
        sa.Column("worker", sa.Text(), comment="RQ's name of the worker that started it last"),
        sa.Column("lease_expires_at", moment),
        sa.Column("started_at", moment, comment="when its last attempt began"),
        sa.Column("finished_at", moment, comment="when it ended"),
        sa.Column("progress", JSONB()),
        sa.Column("result", JSONB()),
        sa.Column("error", JSONB(), comment="type, message and attempt of the last one that failed"),
        sa.CheckConstraint(
            "status IN ('PENDING', 'SCHEDULED', 'RETRYING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED')",
            name=op.f("jobs_status"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("jobs_pkey")),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index(
        "jobs_to_dispatch",
        "jobs",
        ["due_at"],
        postgresql_where=sa.text(f"{WAITING} AND (dispatched_at IS NULL OR dispatched_at < due_at)"),
    )
    op.create_index(
        "jobs_in_rq",
        "jobs",
        ["queue", "dispatched_at"],
        postgresql_where=sa.text(f"{WAITING} AND dispatched_at >= due_at"),
    )
    op.create_index(
        "jobs_to_expire",
        "jobs",
        ["expires_at"],
        postgresql_where=sa.text(f"{WAITING} AND expires_at IS NOT NULL"),
    )
    op.create_index("jobs_running", "jobs", ["id"], postgresql_where=sa.text("status = 'PROCESSING'"))
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("fence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="what the handler saw as ctx.attempt"),
        sa.Column("worker", sa.Text()),
        sa.Column("started_at", moment, nullable=False),
        sa.Column("finished_at", moment, server_default=sa.text("now()"), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("error_type", sa.Text()),
        sa.Column("error_message", sa.Text()),
        sa.Column("traceback", sa.Text()),
        sa.CheckConstraint(
            "outcome IN ('completed', 'failed', 'discarded', 'timeout', 'lost', 'snoozed', 'handed-back')",
            name=op.f("attempts_outcome"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("attempts_job_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "fence", name=op.f("attempts_pkey")),
    )


def downgrade() -> None:
    op.drop_table("attempts")
    op.drop_table("jobs")
