"""Counters over time.

A process of an earlier version may run beside this schema. The rows that it inserts have no minute, and those that it
merges lose theirs: /metrics stays exact, and /stats lacks these counts.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_COUNTS = ("accepted", "started", "completed", "failed", "retried")


def _histogram(name: str, comment: str) -> tuple[sa.Column, sa.Column]:
    return (
        sa.Column(name, postgresql.ARRAY(sa.Integer()), nullable=False, comment=comment),
        sa.Column(f"{name}_seconds", sa.Double(), nullable=False, comment="sum of the durations"),
    )


def _lock_jobs() -> None:
    # Deadlock: counting statements lock jobs before tallies, so the same order here; and a lock must not grow stronger
    # while others hold a weaker one, so it is the one that 0009 needs to drop an index.
    op.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")


def upgrade() -> None:
    _lock_jobs()
    comment = "start of the minute; null: the row is in counter_history, or has no time"
    op.add_column("tallies", sa.Column("minute", postgresql.TIMESTAMP(timezone=True), comment=comment))
    op.create_table(
        "counter_history",
        sa.Column(
            "minute",
            postgresql.TIMESTAMP(timezone=True),
            nullable=False,
            comment="start of the minute, or of the 15 minutes",
        ),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in _COUNTS),
        *_histogram("wait", "number of starts per histogram bucket"),
        *_histogram("run", "number of ended attempts per histogram bucket"),
        prefixes=["UNLOGGED"],
        comment="counters over time, for /stats; rows of the same time, type and queue are added up",
    )
    op.create_index("counter_history_minute", "counter_history", ["minute"])


def downgrade() -> None:
    _lock_jobs()
    op.drop_table("counter_history")
    op.drop_column("tallies", "minute")
