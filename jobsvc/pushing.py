"""Jobs into RQ: the push, and what RQ is told of a job."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from redis import Redis
from rq import Queue, Retry
from rq.serializers import JSONSerializer

from jobsvc.clock import GRACE_SECONDS
from jobsvc.jobs import Dispatch

# JSON, not RQ's default pickle: with that, whoever can write to Redis can run any code in a worker.
SERIALIZER = JSONSerializer

RUN = "jobsvc.execution.run"
"""The one function that RQ calls, by name."""

RESULT_TTL = 500
"""Seconds for which RQ shows a job that succeeded; Postgres keeps it."""

FAILURE_TTL = 86400
"""Seconds for which RQ shows a job that failed; Postgres keeps it."""


def push(batch: Sequence[Dispatch], connection: Redis) -> None:
    """Queue those of these jobs that are due, schedule the others, in one round trip."""
    with connection.pipeline() as pipeline:
        for name, group in groupby(sorted(batch, key=lambda one: one.queue), key=lambda one: one.queue):
            queue = Queue(name, connection=connection, serializer=SERIALIZER)
            due = []
            for one in group:
                if one.wait > 0:
                    # RQ keeps whole seconds and cuts the rest off; rounded up, it won't ring early.
                    whole_second = datetime.fromtimestamp(math.ceil(one.due_at.timestamp()), UTC)
                    queue.schedule_job(queue.create_job(**_rq_job(one)), whole_second, pipeline=pipeline)
                else:
                    due.append(Queue.prepare_data(**_rq_job(one)))
            if due:
                # Where it was before: it waits for its time no more, and one retried by hand hasn't failed.
                for registry in (queue.scheduled_job_registry, queue.failed_job_registry):
                    pipeline.zrem(registry.key, *(job.job_id for job in due))
                queue.enqueue_many(due, pipeline=pipeline)
        pipeline.execute()


def _rq_job(one: Dispatch) -> dict[str, Any]:
    """A dispatch in RQ's words."""
    retries = [math.ceil(interval) for interval in one.retry_intervals]  # RQ counts whole seconds
    return {
        "func": RUN,
        "args": (str(one.job_id),),
        "job_id": str(one.job_id),
        "description": one.type,
        # The attempt keeps its own time; RQ's is for a process that can't even do that.
        "timeout": math.ceil(one.timeout + GRACE_SECONDS),
        # One value for each retry: RQ repeats the first of a list that is too short.
        "retry": Retry(max=len(retries), interval=retries) if retries else None,
        "result_ttl": RESULT_TTL,
        "failure_ttl": FAILURE_TTL,
    }
