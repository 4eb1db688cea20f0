"""How Alembic runs here: on jobsvc's engine, against its models."""

from alembic import context
from sqlalchemy import text

from jobsvc.db import engine
from jobsvc.models import Base

LOCK = 0x6A6F6273  # any number that is ours; two programs may start, and migrate, at once

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    with engine().connect() as connection:
        context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
        with context.begin_transaction():
            connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            context.run_migrations()
