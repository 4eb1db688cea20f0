"""Workflows: jobs that depend on others, posted in one request, and a job with more dependents than one commit ends."""

from collections.abc import Iterator
from random import Random
from typing import Any

import httpx

from tests.chaos.load import FAILING, RETRIES, Accepted, Persist, Request, limits, post, send

FAN_OUT = 1100
"""Dependents of one job: a transaction releases 1,000, a relay the others."""

BATCH = 550

SHAPES = {
    "chain": {"a": [], "b": ["a"], "c": ["b"], "d": ["c"]},
    "diamond": {"a": [], "b": ["a"], "c": ["a"], "d": ["a"], "e": ["b", "c", "d"]},
    "fan-out": {"a": [], **{f"b{n}": ["a"] for n in range(12)}},
    "fan-in": {**{f"a{n}": [] for n in range(8)}, "b": [f"a{n}" for n in range(8)], "c": ["b", "a0"]},
}
"""What the jobs of a workflow depend on, by their refs."""


def workflow(random: Random) -> Request:
    """A request that posts a workflow. One in three has a job that fails; dependents are cancelled, or run anyway."""
    shape = SHAPES[random.choice(sorted(SHAPES))]
    failing = random.choice([*shape, *[None] * 2 * len(shape)])
    entries = [_entry(random, ref, on, is_failing=ref == failing) for ref, on in shape.items()]
    random.shuffle(entries)  # a ref may name a later entry

    def request(client: httpx.Client, persist: Persist) -> Iterator[Accepted]:
        bodies = [body for _, body in entries]
        reply = persist(lambda: send(client, "POST", "/jobs/batch", {"jobs": bodies}, 202))
        ids = dict(zip((body["ref"] for body in bodies), reply.json()["jobIds"], strict=True))
        for kind, body in entries:
            yield Accepted(ids[body["ref"]], kind, body, tuple(ids[one] for one in body.get("dependsOn", [])))

    return request


def _entry(random: Random, ref: str, depends_on: list[str], is_failing: bool) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {"type": "CHAOS", "ref": ref, "retry": RETRIES}
    kind = "plain"
    if depends_on:
        body |= {"dependsOn": depends_on, "onDependencyFailure": random.choice(["cancel", "cancel", "run"])}
    if is_failing:
        kind = "failing"
        body |= FAILING
    elif random.random() < 0.2:
        body["payload"] = {"seconds": round(random.uniform(0, 0.5), 2), "failures": random.choice([0, 1])}
    elif random.random() < 0.1:
        kind = "limited"
        body |= limits(random)
    elif random.random() < 0.1:
        kind = "delayed"
        body["delay"] = round(random.uniform(0, 3), 2)
    return kind, body


def fan_out(is_failing: bool) -> Request:
    """A request that posts FAN_OUT dependents of one job, which completes, or fails so that they are cancelled."""
    first = {"type": "CHAOS", "payload": {"seconds": 1}, "retry": RETRIES, "delay": 2}
    if is_failing:
        first |= FAILING

    def request(client: httpx.Client, persist: Persist) -> Iterator[Accepted]:
        job_id = persist(lambda: post(client, first))
        yield Accepted(job_id, "failing" if is_failing else "plain", first)
        body = {"type": "CHAOS", "retry": RETRIES, "dependsOn": [job_id]}
        for _ in range(FAN_OUT // BATCH):
            batch = {"jobs": [body] * BATCH}
            reply = persist(lambda batch=batch: send(client, "POST", "/jobs/batch", batch, 202))
            yield from (Accepted(one, "plain", body, (job_id,)) for one in reply.json()["jobIds"])

    return request
