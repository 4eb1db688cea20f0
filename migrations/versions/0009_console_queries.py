"""Indexes for lists and counts of SCHEDULED and RETRYING jobs, and of jobs with an error."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TYPE = "left(error ->> 'type', 200)"
LINE = "split_part(translate(left(error ->> 'message', 200), chr(13), chr(10)), chr(10), 1)"
ERRORS = {"jobs_error_type": [TYPE], "jobs_error_line": [LINE], "jobs_error": [TYPE, LINE]}


def upgrade() -> None:
    for status in ("SCHEDULED", "RETRYING"):
        op.create_index(f"jobs_{status.lower()}", "jobs", ["id"], postgresql_where=sa.text(f"status = '{status}'"))
    for name, columns in ERRORS.items():
        op.create_index(name, "jobs", [*map(sa.text, columns), "id"], postgresql_where=sa.text("error IS NOT NULL"))


def downgrade() -> None:
    for name in (*ERRORS, "jobs_retrying", "jobs_scheduled"):
        op.drop_index(name, "jobs")
