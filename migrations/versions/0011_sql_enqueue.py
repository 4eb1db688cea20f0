"""SQL enqueue: the types and queues that processes have registered, and the function jobsvc_enqueue."""

import re
from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

SQL = Path(__file__).with_suffix(".sql").read_text()
FUNCTIONS = re.findall(r"^CREATE FUNCTION (\w+)", SQL, re.MULTILINE)
MOMENT = TIMESTAMP(timezone=True)

# A later migration replaces the function by CREATE OR REPLACE, which keeps its grants, and then runs this again.
SET_PATH = """
DO $do$ BEGIN
    EXECUTE format('ALTER FUNCTION jobsvc_enqueue(text, jsonb, jsonb) SET search_path = %I, pg_temp', current_schema());
END $do$
"""
# All that follows is created in the schema of the table jobs, also if the role's search_path has others before it.
ENTER_SCHEMA = """
SELECT set_config('search_path', quote_ident(nspname), true)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE pg_class.oid = 'jobs'::regclass
"""


def upgrade() -> None:
    op.execute(ENTER_SCHEMA)
    op.create_table(
        "job_types",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("timeout", sa.Double(), nullable=False, comment="seconds per attempt"),
        sa.Column("retry", JSONB(), nullable=False, comment="retry policy, in the words of POST /jobs"),
        sa.Column("rate_limit", JSONB(), comment="rate limit, in the words of POST /jobs; null: none"),
        sa.Column("updated_at", MOMENT, nullable=False, comment="last start of a process that has a handler of it"),
        sa.PrimaryKeyConstraint("name", name=op.f("job_types_pkey")),
    )
    op.create_table(
        "served_queues",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False, comment="last start of a process that has it in its settings"),
        sa.PrimaryKeyConstraint("name", name=op.f("served_queues_pkey")),
    )
    _execute(SQL)
    _execute(SET_PATH)
    for name in FUNCTIONS:
        op.execute(f"REVOKE ALL ON FUNCTION {name} FROM PUBLIC")


def downgrade() -> None:
    for name in reversed(FUNCTIONS):
        op.execute(f"DROP FUNCTION {name}")
    op.drop_table("served_queues")
    op.drop_table("job_types")


def _execute(statements: str) -> None:
    """Execute SQL as it is written: op.execute would read colons as parameters and double percent signs."""
    context = op.get_context()
    if context.as_sql:
        context.impl.static_output(statements.strip().removesuffix(";") + ";\n")
    else:
        op.get_bind().exec_driver_sql(statements, execution_options={"no_parameters": True})
