"""The number of completed jobs in one Redis script is bounded."""

from typing import Any, cast
from uuid import UUID

from jobsvc.dispatch.enqueue import AT_ONCE
from jobsvc.jobs import completed
from jobsvc.worker import rq_records
from jobsvc.worker.running import FinishedAttempt


def sizes(results: list[Any]) -> list[int]:
    """Return the number of jobs in each script, for these results."""
    ended = [
        FinishedAttempt(cast(Any, None), completed(UUID(int=n), 1, result), 0.0) for n, result in enumerate(results)
    ]
    portions = list(rq_records._portions(ended))
    assert [one for portion in portions for one, _ in portion] == ended
    return [len(portion) for portion in portions]


def test_script_has_a_bounded_number_of_jobs() -> None:
    assert sizes([None] * (2 * AT_ONCE + 1)) == [AT_ONCE, AT_ONCE, 1]
    assert sizes([None] * AT_ONCE) == [AT_ONCE]


def test_large_results_are_sent_separately() -> None:
    large = "x" * rq_records.MOST_BYTES
    assert sizes([None, large, large, None, None]) == [1, 1, 1, 2]
