"""Bytes that a job takes in Postgres and in Redis, by its state."""

import json
from typing import Any

from bench import load
from bench.competitors import JOBSVC
from bench.environment import eventually
from bench.jobsvc_stacks import Jobsvc
from bench.scaling.meter import table
from bench.scaling.servers import ScalingEnvironment

JOBS: dict[str, tuple[dict[str, Any], bool]] = {
    "waiting": ({}, False),
    "waiting for its time": ({"delay": 86_400}, False),
    "waiting, with 3 tags": ({"tags": ["a", "b", "c"]}, False),
    "completed": ({}, True),
    "completed, with 3 tags": ({"tags": ["a", "b", "c"]}, True),
    "completed at its second attempt": ({"payload": {"failAttempts": 1}, "retry": {"max": 1, "interval": 0.1}}, True),
    "failed": ({"payload": {"failAttempts": 9}, "retry": {"max": 0}}, True),
}
"""Fields of the posted job, and whether workers run it."""

SIZES = """
SELECT pg_table_size('jobs'), pg_indexes_size('jobs'),
       pg_total_relation_size('attempts') + pg_total_relation_size('attempt_lines')
"""


def measure(environment: ScalingEnvironment, number: int) -> None:
    """Print the bytes for each kind of job, as the tables stand, and rewritten by VACUUM FULL."""
    rows = [[what, *_measure(environment, fields, is_run, number)] for what, (fields, is_run) in JOBS.items()]
    table(
        ("", "table", "its indexes", "attempts", "Postgres in all", "in all after VACUUM FULL", "bytes in Redis"), rows
    )


def _measure(environment: ScalingEnvironment, fields: dict[str, Any], is_run: bool, number: int) -> list[float]:
    competitor = Jobsvc(JOBSVC, 0)
    competitor.prepare(environment)
    empty = _read(environment)
    _, port = competitor.serve(environment)
    posted = {"type": "TEST_JOB", "payload": {"durationMs": 0}, **fields}
    body = json.dumps({"jobs": [posted] * load.MAX_BATCH}).encode()
    load.post(port, "/jobs/batch", body, connections=2, number=number // load.MAX_BATCH)
    if is_run:
        competitor.work(environment)
        eventually(lambda: competitor.completed(environment) >= number, f"{number} jobs end", 300, 0.5)
    else:
        eventually(lambda: _in_redis(environment) >= number, f"{number} jobs are in Redis", 120)
    environment.clear()
    whole = _read(environment)
    environment.sql("VACUUM FULL jobs")
    environment.sql("VACUUM FULL attempts")
    packed = _read(environment)
    return [
        *((whole[n] - empty[n]) / number for n in range(3)),
        sum(whole[n] - empty[n] for n in range(3)) / number,
        sum(packed[n] - empty[n] for n in range(3)) / number,
        (whole[3] - empty[3]) / number,
    ]


def _in_redis(environment: ScalingEnvironment) -> int:
    return int(
        environment.redis.llen("rq:queue:jobsvc.default") + environment.redis.zcard("rq:scheduled:jobsvc.default")
    )


def _read(environment: ScalingEnvironment) -> list[int]:
    return [*map(int, environment.sql(SIZES)[0]), int(environment.redis.info("memory")["used_memory"])]
