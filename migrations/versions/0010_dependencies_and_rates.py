"""Dependencies between jobs, and rate limits.

A process of an earlier version may run beside this schema. It neither releases the dependents of the jobs that it
finishes (a relay finds them later) nor keeps rate limits.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

UUID, TIME = sa.Uuid(), postgresql.TIMESTAMP(timezone=True)
STARTABLE = "status IN ('PENDING', 'SCHEDULED', 'RETRYING')"
WAITING = "status IN ('PENDING', 'SCHEDULED', 'RETRYING', 'BLOCKED')"
WITHHELD = f"{STARTABLE} AND dispatched_at = 'infinity'"
IN_RQ = f"{STARTABLE} AND dispatched_at >= due_at AND dispatched_at < '9999-12-31 00:00:00+00'"
LANE_OF_CONCURRENCY_KEY = (
    "concurrency_limit",
    "coalesce(rate_key, '')",
    "coalesce(rate_limit, 0)",
    "coalesce(rate_per, 0)",
    "queue",
)
LANE_OF_RATE_KEY = (
    "rate_limit",
    "rate_per",
    "coalesce(concurrency_key, '')",
    "coalesce(concurrency_limit, 0)",
    "queue",
)
STATUSES = ("PENDING", "SCHEDULED", "RETRYING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED")


def _unique_key(waiting: str) -> str:
    return f"unique_key IS NOT NULL AND (status = 'PROCESSING' OR {waiting})"


def _create_index(name: str, columns: list[Any], where: str, **options: object) -> None:
    op.create_index(name, "jobs", columns, postgresql_where=sa.text(where), **options)


def _replace_index(name: str, columns: list[Any], where: str, **options: object) -> None:
    op.drop_index(name, "jobs")
    _create_index(name, columns, where, **options)


def _replace_check(*statuses: str) -> None:
    op.drop_constraint(op.f("jobs_status"), "jobs", type_="check")
    op.create_check_constraint(op.f("jobs_status"), "jobs", f"status IN ({', '.join(map(repr, statuses))})")


def _index_by_status(*statuses: str) -> None:
    where = f"status IN ({', '.join(map(repr, statuses))})"
    _replace_index("jobs_status", ["status", "id"], where, postgresql_include=["type", "queue"])


def _lock_jobs() -> None:
    # Deadlock: at once the lock that dropping an index needs, since it must not grow stronger while others wait.
    op.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")


def upgrade() -> None:
    _lock_jobs()
    for column in (
        sa.Column("rate_key", sa.Text(), comment="at most rate_limit such jobs start in any rate_per seconds"),
        sa.Column("rate_limit", sa.Integer()),
        sa.Column("rate_per", sa.Double()),
        sa.Column("depends_on", postgresql.ARRAY(UUID), comment="jobs that must end before it starts; null if none"),
        sa.Column("on_dependency_failure", sa.Text(), comment="cancel or run; null if it depends on none"),
        sa.Column("open_dependencies", sa.Integer(), comment="of a BLOCKED job: dependencies that have not ended"),
        sa.Column("has_dependents", sa.Boolean(), comment="true once a job depends on it; else null"),
    ):
        op.add_column("jobs", column)
    op.create_table(
        "dependencies",
        sa.Column("dependency_id", UUID, primary_key=True),
        sa.Column("dependent_id", UUID, primary_key=True),
        sa.Column(
            "is_open",
            sa.Boolean(),
            nullable=False,
            comment="true while the BLOCKED dependent waits for the end of the dependency",
        ),
    )
    op.create_table(
        "pending_releases",
        sa.Column("job_id", UUID, primary_key=True),
        sa.Column("after", UUID, comment="id of the last dependent that was released; null: none yet"),
    )
    op.create_table(
        "rate_starts",
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("number", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("started_at", TIME, nullable=False),
    )
    op.create_index("rate_starts_time", "rate_starts", ["key", "started_at", "number"])
    _replace_check(*STATUSES, "BLOCKED")
    _index_by_status("SCHEDULED", "RETRYING", "BLOCKED", "FAILED", "CANCELLED")
    _replace_index("jobs_to_expire", ["expires_at"], f"{WAITING} AND expires_at IS NOT NULL")
    _replace_index("jobs_unique_key", ["type", "unique_key"], _unique_key(WAITING), unique=True)
    for name in ("jobs_held_by_key", "jobs_held_by_pause"):
        op.drop_index(name, "jobs")
    _create_index(
        "jobs_withheld_by_key",
        ["concurrency_key", *map(sa.text, LANE_OF_CONCURRENCY_KEY), "due_at"],
        f"concurrency_key IS NOT NULL AND {WITHHELD}",
    )
    _create_index(
        "jobs_withheld_by_pause", ["queue", "due_at"], f"concurrency_key IS NULL AND rate_key IS NULL AND {WITHHELD}"
    )
    _create_index("jobs_rate_key", ["rate_key"], f"rate_key IS NOT NULL AND {IN_RQ}")
    _create_index(
        "jobs_withheld_by_rate",
        ["rate_key", *map(sa.text, LANE_OF_RATE_KEY), "due_at"],
        f"rate_key IS NOT NULL AND {WITHHELD}",
    )


def downgrade() -> None:
    _lock_jobs()
    # Without this version nothing would release a BLOCKED job; withheld jobs are dispatched anew.
    op.execute("UPDATE jobs SET status = 'CANCELLED', finished_at = now() WHERE status = 'BLOCKED'")
    op.execute(f"UPDATE jobs SET dispatched_at = NULL WHERE rate_key IS NOT NULL AND {WITHHELD}")
    for name in ("jobs_withheld_by_rate", "jobs_rate_key", "jobs_withheld_by_pause", "jobs_withheld_by_key"):
        op.drop_index(name, "jobs")
    _create_index("jobs_held_by_pause", ["queue", "due_at"], f"concurrency_key IS NULL AND {WITHHELD}")
    _create_index("jobs_held_by_key", ["concurrency_key", "due_at"], f"concurrency_key IS NOT NULL AND {WITHHELD}")
    _replace_index("jobs_unique_key", ["type", "unique_key"], _unique_key(STARTABLE), unique=True)
    _replace_index("jobs_to_expire", ["expires_at"], f"{STARTABLE} AND expires_at IS NOT NULL")
    _index_by_status("SCHEDULED", "RETRYING", "FAILED", "CANCELLED")
    _replace_check(*STATUSES)
    for name in ("rate_starts", "pending_releases", "dependencies"):
        op.drop_table(name)
    for name in (
        "has_dependents",
        "open_dependencies",
        "on_dependency_failure",
        "depends_on",
        "rate_per",
        "rate_limit",
        "rate_key",
    ):
        op.drop_column("jobs", name)
