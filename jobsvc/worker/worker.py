"""RQ's worker, which runs our jobs by the batch (see `batch`), and any other as RQ does, a fork for each."""

import contextlib
import logging
import math
import os
import signal
import threading
import time
from multiprocessing import parent_process
from types import FrameType
from typing import Any

from redis import Redis, RedisError
from redis.client import PubSub, PubSubWorkerThread
from rq import Queue
from rq.command import parse_payload
from rq.exceptions import StopRequested
from rq.job import Job as RQJob
from rq.utils import get_connection_from_queues

from jobsvc import logs
from jobsvc.config import settings
from jobsvc.dispatch import rq_redis
from jobsvc.execution import rq_entry as attempts
from jobsvc.execution.bootstrap import bootstrap
from jobsvc.processes.orphans import kill_descendants, signals_kept, stop_gently, when_orphaned
from jobsvc.processes.timetable import CLEANUP_SECONDS, WORKER_SECONDS
from jobsvc.worker.batch import BatchRunner
from jobsvc.worker.child import is_forking
from jobsvc.worker.redis_retry import WaitForRedis
from jobsvc.worker.rq_queue import QueueingWorker, is_ours

logger = logging.getLogger("jobsvc.worker")

WORKER_TTL = 20
"""Seconds. RQ waits 15 less for a job, and 5 less for a Redis that doesn't answer; its own 420 would be minutes."""

SCHEDULER_SECONDS = 1.5
"""How long RQ's scheduler may take to end: it looks each second whether it shall."""

FORCED_SECONDS = 2.0
"""How long a worker may take to end that was told to stop a second time."""


class JobsvcWorker(QueueingWorker):
    """RQ's worker, which takes, starts and finishes jobs many at a time, and waits for Redis.

    It stops when the pool that started it has died, and its children die with it: the processes of
    its handlers, and RQ's scheduler.
    """

    def __init__(self, queues: Any, name: str | None = None, *, connection: Redis | None = None, **kwargs: Any) -> None:
        bootstrap()
        connection = connection or get_connection_from_queues(queues)
        assert connection
        self._redis_retry = WaitForRedis(rq_redis.probe)
        if kwargs.get("prepare_for_work", True):
            # From here on Redis is waited for. RQ's own handlers come later, and there is nothing to finish yet.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: os._exit(os.EX_OK))
            if (pool := parent_process()) and pool.pid:
                when_orphaned(pool.pid, stop_gently)
            connection.set_retry(self._redis_retry)
        super().__init__(queues, name, connection=connection, **{**kwargs, "worker_ttl": WORKER_TTL})
        self._batches = BatchRunner(self, self.name, settings().JOBSVC_CONCURRENCY)
        self._is_working = False
        self._pid = 0
        self._leave_by = math.inf  # monotonic seconds

    def work(self, *args: Any, max_jobs: int | None = None, **kwargs: Any) -> bool:
        """As RQ's, at the level that RQ's log has here, which its pool forgets for a worker that it starts again."""
        self._is_one_by_one = max_jobs is not None
        attempts.warm_up()
        self._batches.children.for_many()  # so that the first job needn't wait for its process
        self._pid = os.getpid()
        os.register_at_fork(after_in_child=self._die_with_worker)
        try:
            return bool(super().work(*args, **{**kwargs, "max_jobs": max_jobs, "logging_level": logs.RQ_LEVEL}))
        finally:
            self._batches.children.close()

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[RQJob, Queue] | None:
        """As RQ's; a worker that goes on until it is stopped runs, meanwhile, what other workers refused."""
        while not self.may_take():
            if timeout is None:
                return None
            time.sleep(1)
        if timeout is None or max_idle_time is not None or self._is_one_by_one:
            return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
        while True:
            while not self.may_take():
                time.sleep(1)
            self._run_withheld()
            # None after a second in which nothing came.
            if (result := super().dequeue_job_and_maintain_ttl(timeout, max_idle_time=1)) is not None:
                return result

    def _run_withheld(self) -> None:
        self._is_working = True  # so that no signal strikes between the claim of a job and its start
        try:
            if withheld := self.take_withheld(settings().JOBSVC_CONCURRENCY):
                self._run_batch(withheld)
        finally:
            self._is_working = False
        if self._stop_requested:
            raise StopRequested

    def execute_job(self, job: RQJob, queue: Queue) -> None:
        """Run a batch that begins with this job; one that isn't ours, as RQ does."""
        if is_ours(job):
            self._run_batch([job.id])
            return
        self._is_working, self._is_held_up = True, False
        try:
            super().execute_job(job, queue)
        finally:
            self._is_working = False

    def _run_batch(self, job_ids: list[str]) -> None:
        self._is_working, self._is_held_up = True, False
        try:
            with self._redis_retry.suspended():
                self._batches.run(job_ids)
        finally:
            self._is_working = False

    def handle_payload(self, message: Any) -> None:
        """As RQ's, of one of many executions, or of the processes of all of them."""
        payload = parse_payload(message)
        command, job_id = payload["command"], payload.get("job_id")
        ours = [one for one in list(self._batches.held.values()) if str(one.started.job_id) == job_id]
        if command in ("stop-job", "stop-execution") and ours:
            ours[0].is_stopped_by_rq = ours[0].is_cancel_requested = True
        elif command == "kill-horse" and self._batches.held:
            self._batches.children.kill()
        else:
            super().handle_payload(message)  # type: ignore[no-untyped-call]

    def subscribe(self) -> None:
        """As RQ's, in a thread that leaves this process' signals to the main one."""
        with signals_kept():
            super().subscribe()  # type: ignore[no-untyped-call]

    def handle_warm_shutdown_request(self) -> None:
        """Tell what runs, too: it goes back uncounted if it doesn't end within JOBSVC_SHUTDOWN_SECONDS."""
        self._redis_retry.end()
        self._batches.stop()
        self._leave_by = time.monotonic() + settings().JOBSVC_SHUTDOWN_SECONDS + WORKER_SECONDS
        with signals_kept():
            threading.Thread(target=self._leave_in_time, daemon=True).start()
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """As RQ's, but what it sets off is not struck by another signal, such as the pool's copy of a Ctrl-C."""
        try:
            super().request_force_stop(signum, frame)
        except SystemExit:
            self._leave_by = min(self._leave_by, time.monotonic() + FORCED_SECONDS)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: None)
            raise

    def _leave_in_time(self) -> None:
        """End this process and those below it when its time is over, whatever still hangs.

        A job that RQ runs for others, in a process of its own, is killed a moment before, so that RQ can note it.
        """
        while (left := self._leave_by - time.monotonic()) > 0:
            if self.horse_pid and left <= WORKER_SECONDS - CLEANUP_SECONDS:
                self.kill_horse()
            time.sleep(min(left, 0.05))
        logger.error("worker: not stopped in time, its process ends now")
        self._batches.children.kill()
        kill_descendants()
        os._exit(os.EX_SOFTWARE)

    def _shutdown(self) -> None:
        """As RQ's, but without a wait: of two signals at once Python runs one handler after the other, and RQ takes
        a signal that it hears of a second after the first for the order to stop at once.
        """
        if not self._is_working:
            raise StopRequested
        self._stop_requested = True
        if self.scheduler and self.scheduler._process:
            self.scheduler._process.terminate()

    def stop_scheduler(self) -> None:
        """As RQ's, but a scheduler that hangs is killed."""
        if self.scheduler and (process := self.scheduler._process):
            process.terminate()
            process.join(max(min(SCHEDULER_SECONDS, self._leave_by - time.monotonic() - 0.2), 0))
            process.kill()

    def teardown(self) -> None:
        """As RQ's, as far as Redis is there."""
        with contextlib.suppress(RedisError, StopRequested):
            super().teardown()  # type: ignore[no-untyped-call]

    def _die_with_worker(self) -> None:
        # Handlers' own processes live as long as they like: they are the children of a child.
        if not is_forking() and os.getppid() == self._pid:
            when_orphaned(self._pid, lambda: os._exit(1))

    def _pubsub_exception_handler(self, exc: Exception, pubsub: PubSub, pubsub_thread: PubSubWorkerThread) -> None:
        if isinstance(exc, StopRequested):
            pubsub_thread.stop()
        else:
            super()._pubsub_exception_handler(exc, pubsub, pubsub_thread)
