"""Jobs that wait for a worker that knows their type."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

WAITING = "status IN ('PENDING', 'SCHEDULED', 'RETRYING')"
AWAITS_HANDLER_AT = "9999-12-31 00:00:00+00"
DISPATCHED_AT = "when it was last pushed to RQ; before due_at: not for this turn; infinity: held back"


def upgrade() -> None:
    op.create_index(
        "jobs_awaiting_handler",
        "jobs",
        ["queue", "type", "due_at"],
        postgresql_where=sa.text(f"{WAITING} AND dispatched_at = '{AWAITS_HANDLER_AT}'"),
    )
    op.alter_column("jobs", "dispatched_at", comment=f"{DISPATCHED_AT}; year 9999: no handler")
    _take_places_until(AWAITS_HANDLER_AT)


def downgrade() -> None:
    op.drop_index("jobs_awaiting_handler")
    op.execute(f"UPDATE jobs SET dispatched_at = NULL WHERE {WAITING} AND dispatched_at = '{AWAITS_HANDLER_AT}'")
    op.alter_column("jobs", "dispatched_at", comment=DISPATCHED_AT)
    _take_places_until("infinity")


def _take_places_until(moment: str) -> None:
    """Index whatever takes a place of a concurrency key: what runs, and what was dispatched before `moment`."""
    op.drop_index("jobs_concurrency_key")
    is_in_rq = f"{WAITING} AND dispatched_at >= due_at AND dispatched_at < '{moment}'"
    op.create_index(
        "jobs_concurrency_key",
        "jobs",
        ["concurrency_key"],
        postgresql_where=sa.text(f"concurrency_key IS NOT NULL AND (status = 'PROCESSING' OR ({is_in_rq}))"),
    )
