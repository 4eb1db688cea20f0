"""Exit of a child process whose worker has died: it first stores the results of its jobs in Postgres."""

import logging
import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import NoReturn

from jobsvc.execution.attempt import with_lines
from jobsvc.execution.reporter import Running
from jobsvc.execution.results import store_results
from jobsvc.jobs import AttemptResult, StartedAttempt, lost, returned_uncounted
from jobsvc.processes.orphans import end_group, kill_descendants

logger = logging.getLogger("jobsvc.worker")

STORE_SECONDS = 1.5
"""Time limit for storing the results; then the child process exits with all that its handlers have started."""

PARENT_SECONDS = 1.0
"""Time for which a dying worker may remain its child's parent after their channel was closed."""


def end_in_place_of_worker(
    worker: int,
    unstarted: Iterable[StartedAttempt],
    running: Mapping[int, Running],
    not_stored: Mapping[int, AttemptResult],
) -> NoReturn:
    """Store the results of these attempts (lost if still running), and end this process and its group.

    If the process `worker` is alive, exit without storing: the channel was closed here, and the worker decides.
    """
    if not _has_ended(worker):
        os._exit(os.EX_SOFTWARE)
    threading.Timer(STORE_SECONDS, end_group).start()
    kill_descendants()
    results = list(not_stored.values())
    for slot, one in running.items():
        if slot not in not_stored:
            result = lost(one.started.job_id, one.started.fence, "the worker died before the attempt ended")
            results.append(with_lines(result, one.log.kept()))
    results += [returned_uncounted(one.job_id, one.fence, handler_called=False) for one in unstarted]
    try:
        if results:
            store_results(results)
            logger.warning("process %d: the worker died, its results are stored (%d jobs)", os.getpid(), len(results))
    except Exception as error:
        logger.warning("process %d: the worker died, %d results are not stored: %s", os.getpid(), len(results), error)
    finally:
        end_group()


def _has_ended(worker: int) -> bool:
    # Race: a dying process closes its files a moment before its children get a new parent.
    deadline = time.monotonic() + PARENT_SECONDS
    while os.getppid() == worker:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
