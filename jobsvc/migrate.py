"""`jobsvc migrate`: migrates the tables, and can change the owner of a namespace in Redis."""

import argparse
from uuid import uuid4

from flask import Flask
from flask_migrate import Migrate, upgrade
from redis import RedisError
from sqlalchemy import update

from jobsvc import locations, logs
from jobsvc.config import settings
from jobsvc.db.engine import transaction
from jobsvc.db.models import Base, Deployment
from jobsvc.dispatch import ownership, rq_redis
from jobsvc.errors import JobsvcError
from jobsvc.processes.refusal import exit_on_error, refuse_start


def main() -> None:
    """Run the command with the arguments of `python -m jobsvc.migrate`."""
    parser = argparse.ArgumentParser(prog="python -m jobsvc.migrate", description="Bring the tables up to date.")
    parser.add_argument(
        "--new-owner", action="store_true", help="give the database an id of its own, after it was copied"
    )
    parser.add_argument(
        "--take-namespace",
        action="store_true",
        help="make this database the owner of JOBSVC_NAMESPACE in Redis; other databases' processes stop using it",
    )
    migrate(**vars(parser.parse_args()))


def migrate(new_owner: bool, take_namespace: bool) -> None:
    """Migrate the tables, and do what the options say; exits with one line on stderr if it fails."""
    with exit_on_error():
        settings()
    app = Flask("jobsvc")
    Migrate(app, Base, directory=str(locations.migrations()))
    with app.app_context():
        upgrade()
    logs.set_up()
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


if __name__ == "__main__":
    main()
