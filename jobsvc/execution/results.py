"""Writes results of attempts to Postgres, and logs them; for workers of both kinds and for orphaned children."""

import logging
from collections import Counter
from collections.abc import Sequence

from jobsvc import jobs, logs
from jobsvc.errors import StoreUnavailable
from jobsvc.execution.result_json import UnserializableResult
from jobsvc.jobs import AttemptResult, Failure, JobTransition, StartedAttempt
from jobsvc.servers.outages import OutageTracker
from jobsvc.states import STARTABLE, Outcome, Status

logger = logging.getLogger("jobsvc.worker")

MAX_LINES = 10
"""If more results than this are logged at once, completed jobs share one line."""

Stored = tuple[AttemptResult, JobTransition | None]
"""A result, and its job's transition: None if the lease had been lost, or if Postgres rejected the result."""


def store_results(results: Sequence[AttemptResult]) -> list[Stored]:
    """Write attempt results to Postgres in one transaction; returns them in order.

    If Postgres rejects one of them, each is written by itself, and a failure in place of a rejected one.
    Raises StoreUnavailable; it is safe to call again.
    """
    try:
        transitions = {one.job_id: one for one in jobs.finish(results)}
    except StoreUnavailable:
        raise
    except Exception as error:
        if len(results) > 1:
            return [stored for result in results for stored in store_results([result])]
        return [_store_failure(results[0], error)]
    return [(result, transitions.get(result.job_id)) for result in results]


def _store_failure(rejected: AttemptResult, error: Exception) -> Stored:
    """Write a failure in place of a result that Postgres rejected with `error`."""
    logger.error("%s: result rejected by Postgres", rejected.job_id, exc_info=error)
    failure = Failure(UnserializableResult.__name__, f"the result can't be stored: {type(error).__name__}")
    result = AttemptResult(rejected.job_id, rejected.fence, Outcome.FAILED, failure=failure)
    try:
        return result, next(iter(jobs.finish([result])), None)
    except StoreUnavailable:
        raise
    except Exception:
        logger.exception("%s: failure rejected by Postgres, the attempt ends as lost", rejected.job_id)
        return result, None


class ResultWriter:
    """Writes results as `store_results` does; logs once that results wait, until some are stored."""

    def __init__(self, postgres: OutageTracker) -> None:
        self._postgres = postgres
        self._is_waiting = False

    def write(self, results: Sequence[AttemptResult]) -> list[Stored] | None:
        """Return the stored results; None while Postgres is unavailable."""
        stored = None
        with self._postgres:
            stored = store_results(results)
        if stored is None and not self._is_waiting:
            logger.warning("%s: result waits for Postgres (of %d results)", results[0].job_id, len(results))
        self._is_waiting = stored is None
        return stored


def log_results(finished: Sequence[tuple[StartedAttempt, AttemptResult, JobTransition | None]]) -> None:
    """Log the results of attempts, one line each; if there are many, one line for all that completed their jobs."""
    completed: Counter[str] = Counter()
    for started, result, transition in finished:
        if len(finished) > MAX_LINES and transition and transition.status == Status.COMPLETED:
            completed[started.type] += 1
            continue
        name = f"{started.type} {started.job_id} attempt {started.attempt} of {started.max_attempts} {result.outcome}"
        reason = f" ({result.failure.type}: {result.failure.message})" if result.failure else ""
        with logs.AttemptFields(str(started.job_id), started.type, started.attempt):
            if transition is None:
                logger.warning("%s, but the job was no longer this worker's", name)
            elif transition.status in STARTABLE:
                logger.info("%s, again at %s%s", name, transition.due_at.isoformat(" ", "milliseconds"), reason)
            else:
                logger.info("%s%s", name, reason)
    if completed:
        logger.info("completed %s", ", ".join(f"{number} of {type_}" for type_, number in completed.items()))
