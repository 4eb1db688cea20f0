"""`make worker`: RQ's worker pool, with a relay beside it.

The pool starts a worker again that died. Every worker forks a process for each job, so that a
handler which crashes takes nothing with it.
"""

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Iterable
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any
from uuid import UUID

from redis import Redis
from rq import Queue, Worker
from rq.exceptions import DequeueTimeout
from rq.job import Job as RQJob
from rq.worker_pool import WorkerPool

from jobsvc import jobs, logs
from jobsvc.config import settings
from jobsvc.errors import JobsvcError, StoreUnavailable
from jobsvc.orphans import signals_kept, stop_gently, when_orphaned

logger = logging.getLogger("jobsvc.worker")


PAUSES_SECONDS = 0.5
"""How old a worker's knowledge of the paused queues may be. `start` refuses their jobs meanwhile."""

WORKER_TTL = 60
"""Seconds after which RQ takes an idle worker for dead that gave no sign of life; plus 60."""


class PausableQueue(Queue):
    """RQ's queue, which is passed over while it is paused: what waits in it would be refused, one process a job."""

    _paused: set[str] = set()
    _known_until = 0.0

    @classmethod
    def dequeue_any(
        cls, queues: Iterable[Queue], timeout: int | None, *args: Any, **kwargs: Any
    ) -> tuple[RQJob, Queue] | None:
        """As RQ's, from the queues that are not paused; with any paused, it looks again every second."""
        queues = list(queues)
        served = [queue for queue in queues if queue.name not in cls._paused_queues()]
        if timeout is None or served == queues:
            return super().dequeue_any(served, timeout, *args, **kwargs) if served else None
        if not served:
            time.sleep(1)
            raise DequeueTimeout(1, [])
        # RQ moves the job of a single queue by way of another list, which only a worker of that one queue empties.
        twice = served * 2 if len(served) == 1 else served
        return super().dequeue_any(twice, 1, *args, **kwargs)

    @classmethod
    def _paused_queues(cls) -> set[str]:
        if time.monotonic() >= cls._known_until:
            with contextlib.suppress(StoreUnavailable):
                cls._paused = jobs.paused_queues()
            cls._known_until = time.monotonic() + PAUSES_SECONDS
        return cls._paused


class JobsvcWorker(Worker):
    """RQ's forking worker, which tells Postgres at once when the process of an attempt died.

    It stops when the pool that started it has died, and its own children die with it: the process
    of an attempt, and RQ's scheduler.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"worker_ttl": WORKER_TTL, **kwargs})

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """As RQ's, at the level that RQ's log has here, which its pool forgets for a worker that it starts again."""
        # Inherited by the process of an attempt, where it stays pending until the attempt listens.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        if (pool := parent_process()) and pool.pid:
            when_orphaned(pool.pid, stop_gently)
        os.register_at_fork(after_in_child=lambda: when_orphaned(os.getppid(), lambda: os._exit(1)))
        return bool(super().work(*args, **{**kwargs, "logging_level": logs.RQ_LEVEL}))

    def subscribe(self) -> None:
        """As RQ's, in a thread that leaves this process' signals to the main one."""
        with signals_kept():
            super().subscribe()  # type: ignore[no-untyped-call]

    def handle_warm_shutdown_request(self) -> None:
        """Tell the attempt too: it goes back uncounted if it doesn't end within JOBSVC_SHUTDOWN_SECONDS."""
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        if self.horse_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.horse_pid, signal.SIGUSR1)

    def handle_exception(self, job: RQJob, *exc_info: Any) -> None:
        """Nothing: the attempt has logged how it ended, and Postgres keeps the traceback."""

    def handle_work_horse_killed(self, job: RQJob, retpid: int | None, ret_val: int | None, rusage: Any) -> None:
        """End the attempt as lost, without waiting for its lease to lapse."""
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)  # type: ignore[no-untyped-call]
        try:
            jobs.recover_killed(UUID(job.id), self.name)
        except StoreUnavailable as error:
            logger.warning("%s: its process died; its lease will lapse: %s", job.id, error)


class Pool(WorkerPool):
    """RQ's pool, with one process more: the relay's, which is started again like the workers."""

    _relay: BaseProcess | None = None

    def check_workers(self, respawn: bool = True) -> None:
        """As RQ's, once a second, and the relay with them."""
        super().check_workers(respawn)
        if self.status != self.Status.STOPPED and (self._relay is None or not self._relay.is_alive()):
            # A daemon: multiprocessing ends it when the pool ends. A claim it hasn't pushed yet, a sweep finds.
            self._relay = get_context("fork").Process(target=run_relay, args=(os.getpid(),), daemon=True)
            self._relay.start()


def run_relay(pool: int) -> None:
    """The relay's process, which ends when it is told to, and with the process `pool`."""
    from jobsvc.relay import Relay

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the pool's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    when_orphaned(pool, lambda: os._exit(0))
    Relay().run()


def main() -> None:
    """Run the worker until SIGTERM or Ctrl-C; print `Worker Started` first."""
    try:
        from jobsvc import rqsettings  # reads the settings and loads the handlers, before anything forks
    except JobsvcError as error:
        sys.exit(f"jobsvc: {error}")
    logs.set_up()
    print("Worker Started", flush=True)
    Pool(
        rqsettings.QUEUES,
        connection=Redis.from_url(rqsettings.REDIS_URL),
        num_workers=settings().JOBSVC_WORKERS,
        worker_class=JobsvcWorker,
        queue_class=PausableQueue,
        serializer=rqsettings.SERIALIZER,
    ).start(logging_level=logs.RQ_LEVEL)
