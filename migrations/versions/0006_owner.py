"""Each database has an id, by which its jobs are told from others' in a Redis that is shared."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deployment",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False, comment="1: there is one row"),
        sa.Column("owner", sa.Uuid(), nullable=False, comment="stands in Redis, with the namespace that is its own"),
        sa.CheckConstraint("id = 1", name=op.f("deployment_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("deployment_pkey")),
    )
    op.execute("INSERT INTO deployment VALUES (1, gen_random_uuid())")


def downgrade() -> None:
    op.drop_table("deployment")
