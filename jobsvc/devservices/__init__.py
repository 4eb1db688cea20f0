"""Postgres and Valkey for development and tests, from wheels. Product code never imports this.

Each server holds a lock on its folder for as long as it lives, by a file descriptor that it
inherits: who gets the lock knows that no server runs there, whatever pid files say. A server
started here goes on until it is stopped here.
"""

import os
from pathlib import Path

from dotenv import dotenv_values

from jobsvc.devservices.postgres import Postgres
from jobsvc.devservices.server import Server, ServiceError
from jobsvc.devservices.valkey import Valkey

__all__ = ["Postgres", "Server", "ServiceError", "Valkey", "start", "stop"]


def data_dir() -> Path:
    """Where the servers keep their data: `.jobsvc` here, or JOBSVC_DEV_DIR."""
    return Path(os.environ.get("JOBSVC_DEV_DIR", ".jobsvc")).absolute()


def start() -> tuple[dict[str, str], list[Server]]:
    """The URLs of both servers by their variable's name, and those servers that this call started.

    A URL that is set, in the environment or in `.env`, is taken as it is, and nothing is started for it.
    """
    given = {**dotenv_values(".env"), **os.environ}
    urls: dict[str, str] = {}
    started: list[Server] = []
    for variable, kind in (("DATABASE_URL", Postgres), ("REDIS_URL", Valkey)):
        if given.get(variable):
            urls[variable] = str(given[variable])
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
