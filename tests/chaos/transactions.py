"""An application that enqueues in its own transactions: committed, rolled back, or killed before the commit."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from random import Random
from typing import Any

import httpx
import psycopg2

from tests.chaos.load import RETRIES, Accepted, Persist, Request, limits

UNAVAILABLE = (psycopg2.OperationalError, psycopg2.InterfaceError)
"""Errors while Postgres is unavailable; the latter when a connection that was cut is rolled back."""

ENQUEUE = "SELECT jobsvc_enqueue(%s, %s, %s)"

KILLED = f"""
import sys, psycopg2
connection = psycopg2.connect(sys.argv[1])
with connection.cursor() as cursor:
    cursor.execute({ENQUEUE!r}, sys.argv[2:])
    print(cursor.fetchone()[0], flush=True)
sys.stdin.read()
"""
"""A program that enqueues a job, prints its id, and does not commit."""


class Application:
    """Transactions of an application on the service's database. rolled_back: ids of jobs that must not exist."""

    def __init__(self, database_url: str) -> None:
        self.rolled_back: list[str] = []
        self._url = database_url

    def request(self, random: Random) -> Request:
        """A request that enqueues one job, committed in the end; in every third an earlier one is rolled back."""
        options: dict[str, Any] = {"retry": RETRIES}
        payload: dict[str, Any] = {}
        match random.choice(["plain", "plain", "limited", "delayed"]):
            case "limited":
                options |= limits(random)
                payload = options.pop("payload")
            case "delayed":
                options["delay"] = round(random.uniform(0, 4), 2)
        body = options | {"payload": payload}
        before = random.choice([None, None, None, self._roll_back, self._roll_back, self._kill])

        def request(_client: httpx.Client, persist: Persist) -> Iterator[Accepted]:
            arguments = ["CHAOS", json.dumps(payload), json.dumps(options)]
            if before:
                before(arguments)
            yield Accepted(persist(lambda: self._commit(arguments)), "SQL", body)

        return request

    def _commit(self, arguments: list[str]) -> str | None:
        """Return the id of a job whose transaction was committed; None if Postgres was unavailable."""
        with contextlib.suppress(*UNAVAILABLE), contextlib.closing(psycopg2.connect(self._url)) as one:
            with one, one.cursor() as cursor:
                cursor.execute(ENQUEUE, arguments)
                job_id = str(cursor.fetchone()[0])
            return job_id
        return None

    def _roll_back(self, arguments: list[str]) -> None:
        with contextlib.suppress(*UNAVAILABLE), contextlib.closing(psycopg2.connect(self._url)) as one:
            with one.cursor() as cursor:
                cursor.execute(ENQUEUE, arguments)
                self.rolled_back.append(str(cursor.fetchone()[0]))
            one.rollback()

    def _kill(self, arguments: list[str]) -> None:
        command = [sys.executable, "-c", KILLED, self._url, *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, text=True, **pipes) as program:
            if job_id := program.stdout.readline().strip():
                self.rolled_back.append(job_id)
            program.kill()
