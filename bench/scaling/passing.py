"""A process that passes jobs through Postgres by the service's own functions, without Redis and without handlers.

`python -m bench.scaling.passing NUMBER`: accepts, starts and finishes so many jobs, as an API process and a worker do,
in batches of the same size, each in the same transactions; prints the number so far after each batch.
"""

import sys

from jobsvc import jobs
from jobsvc.jobs import AttemptResult, NewJob
from jobsvc.states import Outcome

BATCH = 1000
"""Jobs of an accepted batch: the largest of `POST /jobs/batch`."""

STARTED = 500
"""Jobs that a worker starts and finishes at once when it is busy."""

NEW = NewJob(
    type="TEST_JOB", queue="default", payload={"durationMs": 0}, timeout=180.0, retry_intervals=[1.0, 5.0, 25.0]
)
FAILED_EVERY = 50
"""One job in so many fails, with a row in `attempts`."""


def pass_jobs(number: int) -> None:
    """Accept, start and finish so many jobs."""
    for done in range(0, number, BATCH):
        ids = [one.job_id for one in jobs.submit([NEW] * BATCH)]
        for first in range(0, BATCH, STARTED):
            started = jobs.start(ids[first : first + STARTED], "bench", lease_seconds=15)
            jobs.finish([_result(n, one) for n, one in enumerate(started)])
        print(done + BATCH, flush=True)


def _result(n: int, started: jobs.StartedAttempt) -> AttemptResult:
    if n % FAILED_EVERY:
        return AttemptResult(started.job_id, started.fence, Outcome.COMPLETED)
    failure = jobs.Failure("RuntimeError", "asked", 'Traceback:\n  File "work.py", line 7, in work\n' * 10)
    return AttemptResult(started.job_id, started.fence, Outcome.DISCARDED, failure=failure)


if __name__ == "__main__":
    pass_jobs(int(sys.argv[1]))
