"""Indexes for lists and counts by status, and of jobs with an error."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TYPE = "left(error ->> 'type', 200)"
LINE = "split_part(translate(left(error ->> 'message', 200), chr(13), chr(10)), chr(10), 1)"
ERRORS = {"jobs_error_type": [TYPE], "jobs_error_line": [LINE], "jobs_error": [TYPE, LINE]}
ENDED = ("FAILED", "CANCELLED")


def upgrade() -> None:
    by_status = sa.text("status IN ('SCHEDULED', 'RETRYING', 'FAILED', 'CANCELLED')")
    op.create_index(
        "jobs_status", "jobs", ["status", "id"], postgresql_where=by_status, postgresql_include=["type", "queue"]
    )
    for name, columns in ERRORS.items():
        op.create_index(name, "jobs", [*map(sa.text, columns), "id"], postgresql_where=sa.text("error IS NOT NULL"))
    for status in ENDED:
        op.drop_index(f"jobs_{status.lower()}", "jobs")


def downgrade() -> None:
    for status in ENDED:
        op.create_index(f"jobs_{status.lower()}", "jobs", ["id"], postgresql_where=sa.text(f"status = '{status}'"))
    for name in (*ERRORS, "jobs_status"):
        op.drop_index(name, "jobs")
