"""Postgres and Valkey for development and tests, from wheels. Product code never imports this.

Each server holds a lock on its folder for as long as it lives, by a file descriptor that it
inherits: who gets the lock knows that no server runs there, whatever pid files say. A server
started here goes on until it is stopped here.
"""

import os
from pathlib import Path

from dotenv import dotenv_values

from jobsvc import config
from jobsvc.devservices.postgres import Postgres
from jobsvc.devservices.server import Server, ServiceError
from jobsvc.devservices.valkey import Valkey

__all__ = ["Postgres", "Server", "ServiceError", "Valkey", "check_settings", "given_urls", "start", "stop"]

STAND_INS = {"DATABASE_URL": "postgresql://127.0.0.1/postgres", "REDIS_URL": "redis://127.0.0.1/0"}
"""URLs of embedded servers, for programs that need some before the servers are started."""


def data_dir() -> Path:
    """Where the servers keep their data: `.jobsvc` here, or JOBSVC_DEV_DIR."""
    return Path(os.environ.get("JOBSVC_DEV_DIR", ".jobsvc")).absolute()


def given_urls() -> dict[str, str]:
    """Return the URLs that are set, in the environment or in `.env`, by their variable's name."""
    given = {**dotenv_values(config.DOTENV, encoding=config.ENCODING), **os.environ}
    return {variable: url for variable in STAND_INS if (url := given.get(variable))}


def check_settings() -> config.Settings:
    """Read the settings, with stand-ins for the URLs of embedded servers. Raises ConfigError."""
    config.check(**STAND_INS)  # `.env` can be read from here on
    given = given_urls()
    return config.check(**{variable: url for variable, url in STAND_INS.items() if variable not in given})


def start() -> tuple[dict[str, str], list[Server]]:
    """Start an embedded server for each URL that is not set, but none where a setting is wrong.

    Returns both servers' URLs by their variable's name, and the servers that this call started.
    Raises ConfigError or ServiceError.
    """
    check_settings()
    urls = given_urls()
    started: list[Server] = []
    for variable, kind in (("DATABASE_URL", Postgres), ("REDIS_URL", Valkey)):
        if variable in urls:
            continue
        server = kind(data_dir())
        try:
            urls[variable], is_ours = server.start()
        except ServiceError:
            for one in started:
                one.stop()
            raise
        if is_ours:
            started.append(server)
    return urls, started


def stop() -> list[str]:
    """Stop both embedded servers; returns the names of those that ran."""
    return [server.name for server in (Valkey(data_dir()), Postgres(data_dir())) if server.stop()]
