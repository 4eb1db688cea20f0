"""Log lines of an attempt are stored while it runs, in portions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

LOGS = "[{time, level, message}], the newest; null for none"


def upgrade() -> None:
    op.create_table(
        "attempt_lines",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("fence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column(
            "last_line",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="the number of the last of these, counted from 1",
        ),
        sa.Column("number", sa.Integer(), nullable=False, comment="what the handler saw as ctx.attempt"),
        sa.Column("lines", JSONB(), nullable=False, comment="[{time, level, message}], consecutive"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("attempt_lines_job_id_fkey"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "fence", "last_line", name=op.f("attempt_lines_pkey")),
    )
    op.add_column(
        "attempts",
        sa.Column(
            "last_line",
            sa.BigInteger(),
            comment="the number of the last of them, counted from 1; null: they are all there are",
        ),
    )
    op.alter_column("attempts", "logs", comment="[{time, level, message}], those that came with its end; null for none")


def downgrade() -> None:
    op.alter_column("attempts", "logs", comment=LOGS)
    op.drop_column("attempts", "last_line")
    op.drop_table("attempt_lines")
