"""The expiry of a job stays visible after an attempt has started in time."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TIMESTAMP

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "expiry_met",
            TIMESTAMP(timezone=True),
            comment="expires_at of a job that has started in time: shown, but without effect",
        ),
    )


def downgrade() -> None:
    op.drop_column("jobs", "expiry_met")
