"""Embedded Postgres and Valkey for development and tests, from wheels. Product code never imports this package.

Each server inherits a file descriptor that locks its folder as long as it lives: while the lock is taken a server runs
there, also if a pid file says otherwise. A server continues until `stop`.
"""

import os
from collections.abc import Collection
from pathlib import Path

from dotenv import dotenv_values

from jobsvc import config
from jobsvc.devservices.postgres import Postgres
from jobsvc.devservices.server import Server, ServiceError
from jobsvc.devservices.valkey import Valkey

__all__ = ["Postgres", "Server", "ServiceError", "Valkey"]

PLACEHOLDERS = {"DATABASE_URL": "postgresql://127.0.0.1/postgres", "REDIS_URL": "redis://127.0.0.1/0"}
"""URLs of embedded servers for programs that read the settings before the servers are started."""


def data_dir() -> Path:
    """Return the folder of the embedded servers: JOBSVC_DEV_DIR, or `.jobsvc` in the current folder."""
    return Path(os.environ.get("JOBSVC_DEV_DIR", ".jobsvc")).absolute()


def servers(given: Collection[str] = ()) -> list[Server]:
    """Return the embedded servers, without those whose variable is among `given`."""
    return [server for server in (Postgres(data_dir()), Valkey(data_dir())) if server.variable not in given]


def given_urls() -> dict[str, str]:
    """Return the URLs that are set in the environment or in `.env`, by their variable."""
    given = {**dotenv_values(config.DOTENV, encoding=config.ENCODING), **os.environ}
    return {variable: url for variable in PLACEHOLDERS if (url := given.get(variable))}


def check_settings() -> config.Settings:
    """Read the settings, with placeholders for the URLs of embedded servers. Raises ConfigError."""
    config.check(**PLACEHOLDERS)  # checks that `.env`, which given_urls reads, is valid
    given = given_urls()
    return config.check(**{variable: url for variable, url in PLACEHOLDERS.items() if variable not in given})


def running_urls() -> dict[str, str]:
    """Return the URLs of the embedded servers that run now, without those that are set. Raises ConfigError."""
    check_settings()
    return {one.variable: url for one in servers(given_urls()) if (url := one.running_url())}


def start() -> tuple[dict[str, str], list[Server]]:
    """Start an embedded server for each URL that is not set.

    Returns both URLs by their variable, and the servers that this call started: none if it fails.
    Raises ConfigError and ServiceError.
    """
    check_settings()
    urls = given_urls()
    started: list[Server] = []
    for server in servers(urls):
        try:
            urls[server.variable], is_started = server.start()
        except ServiceError:
            for one in started:
                one.stop()
            raise
        if is_started:
            started.append(server)
    return urls, started


def stop() -> list[str]:
    """Stop both embedded servers; returns the names of those that ran. Raises ServiceError."""
    return [server.name for server in reversed(servers()) if server.stop()]
