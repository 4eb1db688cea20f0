"""Creates the Flask application."""

import sys
from collections.abc import Callable
from typing import Any

from flask import Flask
from werkzeug.routing import IntegerConverter

from jobsvc import locations, logs
from jobsvc.config import settings
from jobsvc.execution.bootstrap import bootstrap
from jobsvc.processes.refusal import exit_on_error

COMMANDS = {"db", "jobs"}
"""`flask` commands that don't serve requests; they report errors of Postgres and Redis themselves."""

WAITERS = 8
"""Maximum number of clients that may wait at once; each occupies a thread, and the server may have only 32."""


def create_app(waiters: int = WAITERS, has_commands: bool = True) -> Flask:
    """Create the Flask application, and start its relay and its job watcher.

    waiters: maximum number of clients that may wait at once. has_commands: False saves 9 MB of memory, without
    commands such as `flask db upgrade`. Exits with one line if a setting is wrong or a handler can't be loaded.
    """
    with exit_on_error():
        app = _App("jobsvc", static_folder=None)
        # One more than the limit, since Werkzeug silently cuts a body of unknown length there.
        app.config["MAX_CONTENT_LENGTH"] = settings().JOBSVC_MAX_BODY_BYTES + 1
        app.url_map.merge_slashes = False
        app.url_map.converters["int"] = _ShortNumber
        if has_commands:
            _add_commands(app)  # before logging is set up, since Alembic logs when it is imported
        bootstrap()
        logs.set_up()
        _wire(app)
        is_command = has_commands and bool(COMMANDS & set(sys.argv[1:]))
        if has_commands and not is_command:
            from jobsvc.dispatch.server_check import check_servers

            check_servers()
        _start(app, waiters, listens=not is_command)
        if has_commands:
            from jobsvc.api import threadcheck

            threadcheck.init_app(app)  # the server is not ours and may have no threads
    return app


class _App(Flask):
    """A Flask application without async functions."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function. Flask's check whether it is async takes 7 of the 143 us of a GET (measured)."""
        return func


class _ShortNumber(IntegerConverter):
    """A number in a path. `int()` raises above 4,300 digits, which Werkzeug doesn't handle."""

    regex = "[0-9]{1,9}"


def _wire(app: Flask) -> None:
    from jobsvc.api import auth, dashboard, headers, operation, problems, proxy
    from jobsvc.api.routes import events, jobs, queues, schedules, stats, system
    from jobsvc.ui import console

    for part in (headers, problems, auth, dashboard, operation):
        part.init_app(app)
    for routes in (jobs, events, schedules, queues, stats, system):
        app.register_blueprint(routes.blueprint)
    console.init_app(app)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    proxy.init_app(app)


def _add_commands(app: Flask) -> None:
    from flask_migrate import Migrate

    from jobsvc.cli.commands import commands
    from jobsvc.db.models import Base

    app.cli.add_command(commands)
    Migrate(app, Base, directory=str(locations.migrations()))


def _start(app: Flask, waiters: int, listens: bool) -> None:
    from jobsvc.api.job_watcher import JobWatcher
    from jobsvc.dispatch.relay import Relay

    app.extensions["relay"] = Relay(listens).start()
    app.extensions["job_watcher"] = JobWatcher(waiters).start()
