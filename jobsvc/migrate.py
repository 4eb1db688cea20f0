"""`jobsvc migrate`: migrates the tables, and can change the owner of a namespace in Redis."""

from contextlib import suppress
from uuid import uuid4

from flask import Flask
from flask_migrate import Migrate, upgrade
from redis import RedisError
from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError

from jobsvc import locations, logs
from jobsvc.config import settings
from jobsvc.db.engine import engine, transaction
from jobsvc.db.models import Base, Deployment
from jobsvc.db.revision import is_newer, read_revision
from jobsvc.dispatch import ownership, rq_redis
from jobsvc.errors import JobsvcError, WrongServer
from jobsvc.processes.refusal import exit_on_error, refuse_start


def migrate(new_owner: bool, take_namespace: bool) -> None:
    """Migrate the tables, and do what the options say; exits with one line on stderr if it fails."""
    with exit_on_error():
        settings()
    logs.set_up()
    if newer := _newer_revision():
        print(f"jobsvc: the tables are newer than this program (revision {newer}), nothing is migrated")
    else:
        app = Flask("jobsvc")
        Migrate(app, Base, directory=str(locations.migrations()))
        with app.app_context():
            upgrade()
    try:
        if new_owner:
            with transaction() as connection:
                connection.execute(update(Deployment).values(owner=uuid4()))
            print("jobsvc: the database has a new id")
        if take_namespace:
            ownership.take(rq_redis.connection())
            print(f"jobsvc: the namespace {settings().JOBSVC_NAMESPACE} belongs to this database now")
    except (JobsvcError, RedisError) as error:
        refuse_start(str(error))


def _newer_revision() -> str | None:
    """Return the tables' revision if a newer version has made them, and processes of this one were started again."""
    with suppress(SQLAlchemyError, WrongServer), engine().begin() as connection:
        found = read_revision(connection)
        return found if is_newer(found) else None
    return None


if __name__ == "__main__":
    from jobsvc import command

    command.migrate(prog_name="python -m jobsvc.migrate")
