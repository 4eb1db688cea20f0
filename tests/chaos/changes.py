"""Jobs that are changed while they wait: by PATCH, or by another request with their unique key."""

import time
from collections.abc import Iterator
from random import Random
from typing import Any
from uuid import uuid4

import httpx

from tests.chaos.load import RETRIES, Accepted, Persist, Request, post, send


def changed(random: Random) -> Request:
    """A request that posts a job for later, and changes its payload and its time once or twice."""
    return random.choice([_patched, _replaced])(random)


def _patched(random: Random) -> Request:
    body = _body(random)
    times = random.randint(1, 2)

    def request(client: httpx.Client, persist: Persist) -> Iterator[Accepted]:
        job_id = persist(lambda: post(client, body))
        changed_at, mark = None, 0
        for number in range(1, times + 1):
            change = {"payload": {"mark": number}, "delay": 0 if number == times else 2}
            reply = persist(lambda change=change: send(client, "PATCH", f"/jobs/{job_id}", change, 200, 409))
            if reply.status_code == 200:
                changed_at, mark = time.time(), number
        yield Accepted(job_id, "changed", body, changed_at=changed_at, mark=mark)

    return request


def _replaced(random: Random) -> Request:
    body = _body(random) | {"uniqueKey": str(uuid4()), "onConflict": "replace"}
    times = random.randint(1, 2)

    def request(client: httpx.Client, persist: Persist) -> Iterator[Accepted]:
        found: dict[str, Accepted] = {}
        for number in range(times + 1):
            given = body | {"payload": {"mark": number}, "delay": 0 if number == times else body["delay"]}
            reply = persist(lambda given=given: send(client, "POST", "/jobs", given, 200, 202, 409))
            if reply.status_code != 409:  # else it had started
                job_id = reply.json()["jobId"]
                found[job_id] = Accepted(job_id, "changed", body, changed_at=time.time(), mark=number)
        yield from found.values()

    return request


def _body(random: Random) -> dict[str, Any]:
    return {"type": "CHAOS", "retry": RETRIES, "delay": round(random.uniform(0, 4), 2)}
