"""The application, put together."""

import sys
from pathlib import Path

from flask import Flask
from werkzeug.routing import IntegerConverter

from jobsvc import logs
from jobsvc.config import settings
from jobsvc.execution.bootstrap import bootstrap
from jobsvc.processes.refusal import exit_on_error

MIGRATIONS = Path(__file__).parent.parent / "migrations"


ERRANDS = {"db", "jobs"}
"""Commands of `flask` that serve nobody; they say themselves what is wrong with a server."""

WAITERS = 8
"""How many clients may wait at once; each holds a thread of a server that may have no more than 32."""


def create_app(waiters: int = WAITERS, has_commands: bool = True) -> Flask:
    """The Flask application, with its relay running beside it, and its hub, which lets `waiters` clients wait.

    Without the commands, such as `flask db upgrade`, it takes 9 MB less. Ends the process with one line when a setting
    is wrong or a handler can't be loaded.
    """
    bootstrap()
    with exit_on_error():
        app = Flask("jobsvc", static_folder=None)
        # One more than the limit, since Werkzeug cuts a body of unknown length there, in silence.
        app.config["MAX_CONTENT_LENGTH"] = settings().JOBSVC_MAX_BODY_BYTES + 1
        app.url_map.merge_slashes = False
        app.url_map.converters["int"] = _ShortNumber
        if has_commands:
            _add_commands(app)  # before there are logs, since Alembic tells of itself as it comes in
        logs.set_up()
        _wire(app)
        if has_commands and not ERRANDS & set(sys.argv[1:]):
            from jobsvc.dispatch.server_check import check_servers

            check_servers()
        _start(app, waiters)
        if has_commands:
            _check_threads(app)  # the server is not ours, so it may have none
    return app


class _ShortNumber(IntegerConverter):
    """A number in a path. Python refuses to read one of more than 4,300 digits, and Werkzeug doesn't expect that."""

    regex = "[0-9]{1,9}"


def _wire(app: Flask) -> None:
    from jobsvc.api import auth, dashboard, headers, problems, proxy
    from jobsvc.api.routes import (
        acting,
        batch,
        docs,
        events,
        job_types,
        jobs,
        listing,
        ops,
        queues,
        schedules,
        webhooks,
    )

    for part in (headers, problems, auth, dashboard):
        part.init_app(app)
    for routes in (jobs, listing, batch, acting, webhooks, events, job_types, schedules, queues, ops, docs):
        app.register_blueprint(routes.blueprint)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    proxy.init_app(app)


def _add_commands(app: Flask) -> None:
    from flask_migrate import Migrate

    from jobsvc.cli.commands import commands
    from jobsvc.db.models import Base

    app.cli.add_command(commands)
    Migrate(app, Base, directory=str(MIGRATIONS))


def _start(app: Flask, waiters: int) -> None:
    from jobsvc.api.job_watcher import JobWatcher
    from jobsvc.dispatch.relay import Relay

    app.extensions["relay"] = Relay().start()
    app.extensions["hub"] = JobWatcher(waiters).start()


def _check_threads(app: Flask) -> None:
    from jobsvc.api import threadcheck

    threadcheck.init_app(app)
