"""`make worker`: RQ's worker pool, with a relay beside it.

The pool starts a worker again that died. Every worker forks a process for each job, so that a
handler which crashes takes nothing with it.
"""

import logging
import os
import signal
import sys
import threading
import time
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from typing import Any
from uuid import UUID

from redis import Redis
from rq import Worker
from rq.job import Job as RQJob
from rq.worker_pool import WorkerPool

from jobsvc import jobs, logs
from jobsvc.config import settings
from jobsvc.errors import JobsvcError

logger = logging.getLogger("jobsvc.worker")


class JobsvcWorker(Worker):
    """RQ's forking worker, which besides tells Postgres at once when the process of an attempt died."""

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """As RQ's, at the log level that this process has set up, which RQ's pool would change."""
        kwargs["logging_level"] = logging.getLogger("rq.worker").level
        return bool(super().work(*args, **kwargs))

    def handle_work_horse_killed(self, job: RQJob, retpid: int | None, ret_val: int | None, rusage: Any) -> None:
        """End the attempt as lost, without waiting for its lease to lapse."""
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)  # type: ignore[no-untyped-call]
        try:
            if jobs.recover(1, job_id=UUID(job.id), worker=self.name):
                logger.warning("%s lost: its process died", job.id)
        except JobsvcError as error:
            logger.warning("%s: its process died; its lease will lapse: %s", job.id, error)


class Pool(WorkerPool):
    """RQ's pool, with one process more: the relay, which is started again like the workers."""

    _relay: BaseProcess | None = None

    def check_workers(self, respawn: bool = True) -> None:
        """As RQ's, once a second, and the relay with them."""
        super().check_workers(respawn)
        if self.status != self.Status.STOPPED and (self._relay is None or not self._relay.is_alive()):
            self._relay = get_context("fork").Process(target=_relay, args=(os.getpid(),), name="relay")
            self._relay.start()

    def stop_workers(self) -> None:
        """As RQ's, and the relay with them."""
        super().stop_workers()  # type: ignore[no-untyped-call]
        if self._relay is not None and self._relay.pid is not None and self._relay.is_alive():
            os.kill(self._relay.pid, signal.SIGTERM)


def _relay(parent: int) -> None:
    """The relay's process: sweeps until it is told to stop, or its parent has died."""
    from jobsvc.relay import Relay

    relay = Relay()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: relay.stop())
    threading.Thread(target=_stop_without, args=(parent, relay.stop), daemon=True).start()
    relay.run()


def _stop_without(parent: int, stop: Any) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    stop()


def main() -> None:
    """Run the worker until SIGTERM or Ctrl-C; print `Worker Started` first."""
    try:
        settings()
        from jobsvc import rqsettings  # loads the handlers, before anything forks
    except JobsvcError as error:
        sys.exit(f"jobsvc: {error}")
    logs.set_up()
    print("Worker Started", flush=True)
    pool = Pool(
        rqsettings.QUEUES,
        connection=Redis.from_url(rqsettings.REDIS_URL),
        num_workers=settings().JOBSVC_WORKERS,
        worker_class=JobsvcWorker,
        serializer=rqsettings.SERIALIZER,
    )
    pool.start(logging_level="WARNING")


if __name__ == "__main__":
    main()
