"""The jobs that are posted, and for each: whether it was accepted, and its expected outcome."""

import threading
import time
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx

from tests.chaos.misbehaviour import FAILURES, MISBEHAVIOUR

RETRIES = {"max": 20, "interval": [0.2, 0.5, 1]}
"""Enough for a job to outlive any number of workers that a run kills under it."""


@dataclass(frozen=True)
class Accepted:
    """A job for which a 202 was received. Times are seconds since the epoch."""

    job_id: str
    kind: str
    body: dict[str, Any]

    @property
    def is_meant_to_fail(self) -> bool:
        return self.kind == "failing"


def some_job(random: Random) -> tuple[str, dict[str, Any]]:
    """A kind of job and its body: most are plain, some retry, come later, take long, misbehave, or fail for good."""
    kinds = {"plain": 45, "odd": 15, "retrying": 15, "delayed": 13, "slow": 5, "stubborn": 2, "failing": 5}
    kind = random.choices([*kinds], [*kinds.values()])[0]
    body: dict[str, Any] = {"type": "CHAOS", "payload": {}, "retry": RETRIES}
    match kind:
        case "odd":
            body["payload"] = {"odd": random.choice(sorted(MISBEHAVIOUR)), "seconds": round(random.uniform(0, 0.3), 2)}
        case "retrying":
            body["payload"] = {"failures": random.randint(1, 3), "raises": random.choice(sorted(FAILURES))}
        case "delayed":
            body["delay"] = round(random.uniform(0.2, 8), 2)
        case "slow":
            body["payload"] = {"seconds": round(random.uniform(0.3, 2.5), 2)}
        case "stubborn":
            body["payload"] = {"seconds": round(random.uniform(0.3, 3), 2), "stubborn": True}
        case "failing":
            body |= {"payload": {"failures": 99}, "retry": {"max": 2, "interval": 0.3}}
    return kind, body


class Load:
    """Posts `count` jobs over `seconds`, in a thread of its own, and remembers which were accepted."""

    def __init__(self, url: str, random: Random, count: int, seconds: float) -> None:
        self.accepted: list[Accepted] = []
        self.refused = 0
        self._url = url
        self._jobs = [some_job(random) for _ in range(count)]
        self._pause = seconds / count
        self._thread = threading.Thread(target=self._post, daemon=True)
        self._thread.start()

    def _post(self) -> None:
        due = time.monotonic()
        with httpx.Client(base_url=self._url, timeout=10) as client:
            for kind, body in self._jobs:
                due += self._pause
                time.sleep(max(due - time.monotonic(), 0))
                while (job_id := post(client, body)) is None:
                    self.refused += 1
                    time.sleep(0.05)
                self.accepted.append(Accepted(job_id, kind, body))

    def wait(self, timeout: float) -> bool:
        """Return True if all jobs have been accepted within `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()


def post(client: httpx.Client, body: dict[str, Any]) -> str | None:
    """Return the job's id if it was accepted; None if it was refused or no response came.

    Raises AssertionError for an answer that no fault excuses.
    """
    try:
        reply = client.post("/jobs", json=body)
    except httpx.TransportError:
        return None
    assert reply.status_code in (202, 503), f"POST /jobs was answered with {reply.status_code}: {reply.text}"
    return str(reply.json()["jobId"]) if reply.status_code == 202 else None
