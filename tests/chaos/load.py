"""The jobs that are posted, and for each: whether it was accepted, and its expected outcome."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx

from tests.chaos.misbehaviour import FAILURES, MISBEHAVIOUR

RETRIES = {"max": 20, "interval": [0.2, 0.5, 1]}
"""Enough for a job to outlive any number of workers that a run kills under it."""

FAILING = {"payload": {"failures": 99}, "retry": {"max": 2, "interval": 0.3}}
"""A job that fails for good."""

RATES = {"rare": {"limit": 2, "per": 1}, "frequent": {"limit": 10, "per": 2}}
"""The rate limits, by their keys."""

CONCURRENCY = {"single": 1, "double": 2}
"""The concurrency limits, by their keys."""

PAUSE = 0.05
"""Seconds until a request that was refused is repeated."""


@dataclass(frozen=True)
class Accepted:
    """A job for which a 202 was received, or whose transaction was committed. Times are seconds since the epoch.

    changed_at: when the job's change was confirmed, after which it runs with the `mark` of the change.
    """

    job_id: str
    kind: str
    body: dict[str, Any]
    depends_on: tuple[str, ...] = ()
    changed_at: float | None = None
    mark: int = 0

    @property
    def is_meant_to_fail(self) -> bool:
        return self.kind == "failing"

    @property
    def is_cancelled_by_failure(self) -> bool:
        """True if the failure of a job that it depends on cancels it."""
        return bool(self.depends_on) and self.body.get("onDependencyFailure", "cancel") == "cancel"


def some_job(random: Random) -> tuple[str, dict[str, Any]]:
    """A kind of job and its body: most are plain, some retry, come later, take long, misbehave, or fail for good."""
    kinds = {
        "plain": 40,
        "odd": 14,
        "retrying": 14,
        "delayed": 12,
        "slow": 5,
        "stubborn": 2,
        "failing": 5,
        "async": 8,
        "limited": 10,
    }
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
            body |= FAILING
        case "async":
            body |= {
                "type": "CHAOS_ASYNC",
                "payload": {"seconds": round(random.uniform(0, 1), 2), "failures": random.choice([0, 0, 1])},
            }
        case "limited":
            body |= limits(random)
    return kind, body


def limits(random: Random) -> dict[str, Any]:
    """A rate limit, a concurrency limit, or both."""
    limited: dict[str, Any] = {"payload": {"seconds": round(random.uniform(0, 0.3), 2)}}
    which = random.choice(["rate", "concurrency", "both"])
    if which != "concurrency":
        key = random.choice(sorted(RATES))
        limited["rateLimit"] = {"key": key, **RATES[key]}
    if which != "rate":
        key = random.choice(sorted(CONCURRENCY))
        limited |= {"concurrencyKey": key, "concurrencyLimit": CONCURRENCY[key]}
    return limited


class Load:
    """Makes requests over `seconds`, in a thread of its own, and remembers the accepted jobs.

    requests: each is called with a client, repeats what is refused by `persist`, and returns what was accepted.
    """

    def __init__(self, url: str, requests: "Sequence[Request]", seconds: float) -> None:
        self.accepted: list[Accepted] = []
        self.refused = 0
        self._url = url
        self._requests = requests
        self._pause = seconds / len(requests)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._make_requests()
        except BaseException as failure:
            self._failure = failure

    def _make_requests(self) -> None:
        due = time.monotonic()
        with httpx.Client(base_url=self._url, timeout=10) as client:
            for request in self._requests:
                due += self._pause
                time.sleep(max(due - time.monotonic(), 0))
                self.accepted += request(client, self.persist)

    def persist(self, attempt: Callable[[], Any]) -> Any:
        """Return the first result that is not None."""
        while (result := attempt()) is None:
            self.refused += 1
            time.sleep(PAUSE)
        return result

    def wait(self, timeout: float) -> bool:
        """Return True if all requests are made within `timeout` seconds. Raises AssertionError for a strange reply."""
        self._thread.join(timeout)
        if self._failure:
            raise self._failure
        return not self._thread.is_alive()


Persist = Callable[[Callable[[], Any]], Any]
Request = Callable[[httpx.Client, Persist], Iterable[Accepted]]


def single(kind: str, body: dict[str, Any]) -> Request:
    """A request that posts one job."""
    return lambda client, persist: [Accepted(persist(lambda: post(client, body)), kind, body)]


def send(client: httpx.Client, method: str, path: str, body: dict[str, Any], *allowed: int) -> httpx.Response | None:
    """Return the reply; None if the service was unavailable or no reply came.

    Raises AssertionError for a reply that no fault excuses.
    """
    try:
        reply = client.request(method, path, json=body)
    except httpx.TransportError:
        return None
    assert reply.status_code in (*allowed, 503), f"{method} {path} was answered with {reply.status_code}: {reply.text}"
    return reply if reply.status_code != 503 else None


def post(client: httpx.Client, body: dict[str, Any]) -> str | None:
    """Return the job's id if it was accepted; None if it was refused or no response came."""
    reply = send(client, "POST", "/jobs", body, 202)
    return str(reply.json()["jobId"]) if reply else None
