"""`make worker`: RQ's worker pool, with a relay beside it.

The pool starts a worker again that died. Every worker forks a process for each job, so that a
handler which crashes takes nothing with it.
"""

import contextlib
import logging
import mmap
import os
import signal
import sys
import threading
import time
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any
from uuid import UUID

from redis import Redis, RedisError
from redis.client import PubSub, PubSubWorkerThread
from rq import Queue, Worker
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job as RQJob
from rq.registry import StartedJobRegistry
from rq.worker import WorkerStatus
from rq.worker_pool import WorkerPool

from jobsvc import execution as attempts
from jobsvc import jobs, logs, rqview
from jobsvc.config import settings
from jobsvc.errors import JobsvcError, StoreUnavailable
from jobsvc.orphans import signals_kept, stop_gently, when_orphaned
from jobsvc.patience import Patience
from jobsvc.pausable import PausableQueue
from jobsvc.watch import GRACE_SECONDS

logger = logging.getLogger("jobsvc.worker")


WORKER_TTL = 20
"""Seconds. RQ waits 15 less for a job, and 5 less for a Redis that doesn't answer; its own 420 would be minutes."""

SCHEDULER_SECONDS = 3
"""How long RQ's scheduler may take to end."""

LAST_RESORT_SECONDS = 5
"""How long a worker that was told to stop may take beyond what its attempt may."""


class JobsvcWorker(Worker):
    """RQ's forking worker, which waits for Redis, and tells Postgres at once when the process of an attempt died.

    It stops when the pool that started it has died, and its own children die with it: the process
    of an attempt, and RQ's scheduler.
    """

    def __init__(self, queues: Any, name: str | None = None, *, connection: Redis, **kwargs: Any) -> None:
        from jobsvc import rqsettings

        # From here on Redis is waited for. RQ's own handlers come later, and there is nothing to finish yet.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: os._exit(os.EX_OK))
        if (pool := parent_process()) and pool.pid:
            when_orphaned(pool.pid, stop_gently)
        self._patience = Patience(rqsettings.probe)
        connection.set_retry(self._patience)
        super().__init__(queues, name, connection=connection, **{**kwargs, "worker_ttl": WORKER_TTL})

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """As RQ's, at the level that RQ's log has here, which its pool forgets for a worker that it starts again."""
        # Inherited by the process of an attempt, where it stays pending until the attempt listens.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        os.register_at_fork(after_in_child=lambda: when_orphaned(os.getppid(), lambda: os._exit(1)))
        attempts.warm_up()
        attempts.outcome_waits = mmap.mmap(-1, 1)  # shared with the processes of this worker's attempts
        return bool(super().work(*args, **{**kwargs, "logging_level": logs.RQ_LEVEL}))

    def subscribe(self) -> None:
        """As RQ's, in a thread that leaves this process' signals to the main one."""
        with signals_kept():
            super().subscribe()  # type: ignore[no-untyped-call]

    def handle_warm_shutdown_request(self) -> None:
        """Tell the attempt too: it goes back uncounted if it doesn't end within JOBSVC_SHUTDOWN_SECONDS."""
        self._patience.end()
        with signals_kept():
            threading.Thread(target=self._last_resort, daemon=True).start()
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]
        self._tell_attempt()

    def fork_work_horse(self, job: RQJob, queue: Queue) -> None:
        """As RQ's; and an attempt whose worker was told to stop a moment before is told, too."""
        super().fork_work_horse(job, queue)
        if self._stop_requested:
            self._tell_attempt()

    def _tell_attempt(self) -> None:
        if self.horse_pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.horse_pid, signal.SIGUSR1)

    def _last_resort(self) -> None:
        """End this process if something hangs, but never under an attempt, which may hold an outcome for Postgres."""
        time.sleep(settings().JOBSVC_SHUTDOWN_SECONDS + GRACE_SECONDS + LAST_RESORT_SECONDS)
        while self.horse_pid:
            time.sleep(1)
        os._exit(1)

    def maintain_heartbeats(self, job: RQJob, execution: Execution) -> None:
        """As RQ's, but nothing that Redis says ends the attempt, nor does its outcome's wait for Postgres."""
        if attempts.outcome_waits[0]:
            job.timeout = -1  # RQ would kill its process a minute after the job's timeout
        with contextlib.suppress(RedisError, StopRequested):
            super().maintain_heartbeats(job, execution)

    def _shutdown(self) -> None:
        """As RQ's, but without a wait: of two signals at once Python runs one handler after the other, and RQ takes
        a signal that it hears of a second after the first for the order to kill the attempt.
        """
        if self.get_state() != WorkerStatus.BUSY:
            raise StopRequested
        self._stop_requested = True
        if self.scheduler and self.scheduler._process:
            self.scheduler._process.terminate()

    def stop_scheduler(self) -> None:
        """As RQ's, but a scheduler that hangs is killed."""
        if self.scheduler and (process := self.scheduler._process):
            process.terminate()
            process.join(SCHEDULER_SECONDS)
            process.kill()

    def teardown(self) -> None:
        """As RQ's, as far as Redis is there."""
        with contextlib.suppress(RedisError, StopRequested):
            super().teardown()  # type: ignore[no-untyped-call]

    def _pubsub_exception_handler(self, exc: Exception, pubsub: PubSub, pubsub_thread: PubSubWorkerThread) -> None:
        if isinstance(exc, StopRequested):
            pubsub_thread.stop()
        else:
            super()._pubsub_exception_handler(exc, pubsub, pubsub_thread)

    def handle_job_success(
        self, job: RQJob, queue: Queue, started_job_registry: StartedJobRegistry, execution: Execution
    ) -> None:
        """As RQ's, unless the execution has nothing to say of the job."""
        if job.meta.get(attempts.ASIDE):
            rqview.step_aside(self, job, execution)
        else:
            super().handle_job_success(job, queue, started_job_registry, execution)

    def handle_job_failure(
        self, job: RQJob, queue: Queue, started_job_registry: Any = None, exc_string: str = "", execution: Any = None
    ) -> None:
        """As RQ's, unless another worker has started the job since."""
        if rqview.is_anothers(self, job):
            rqview.step_aside(self, job, execution)
        else:
            super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)

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
