"""RQ's worker, which runs our jobs in batches (see `batch`), and foreign ones as RQ does, in a fork each."""

import contextlib
import json
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing import parent_process
from multiprocessing.util import register_after_fork
from types import FrameType
from typing import Any

from redis import Redis, RedisError
from redis.client import Pipeline, PubSub, PubSubWorkerThread
from rq import Queue, Worker, worker_registration
from rq.command import parse_payload
from rq.exceptions import StopRequested
from rq.job import Job as RQJob
from rq.utils import get_connection_from_queues

from jobsvc import handlers, logs
from jobsvc.config import settings
from jobsvc.dispatch import rq_redis, rq_workers
from jobsvc.execution import rq_entry as attempts
from jobsvc.execution.bootstrap import bootstrap
from jobsvc.processes.orphans import block_signals, kill_descendants, stop_gently, when_orphaned
from jobsvc.processes.timetable import CLEANUP_SECONDS, WORKER_SECONDS
from jobsvc.worker.batch import BatchRunner
from jobsvc.worker.redis_retry import WaitForRedis
from jobsvc.worker.rq_queue import RQQueue, is_ours
from jobsvc.worker.rq_records import is_running_elsewhere, step_aside
from jobsvc.worker.running import Request
from jobsvc.worker.thread_limit import MAX_THREADS

logger = logging.getLogger("jobsvc.worker")

WORKER_TTL = 20
"""Seconds. RQ waits 15 s less for a job, and 5 s less for a reply of Redis; its default of 420 would mean minutes."""

SCHEDULER_SECONDS = 1.5
"""Time for RQ's scheduler to end: it checks once a second for a request to stop."""

FORCED_SECONDS = 2.0
"""Time for a worker to end after a second request to stop."""


class JobsvcWorker(Worker):
    """RQ's worker, which takes, starts and finishes jobs in batches, and waits for Redis.

    It stops when its pool has died. Its children die with it: the processes of its handlers, and RQ's scheduler.
    """

    def __init__(self, queues: Any, name: str | None = None, *, connection: Redis | None = None, **kwargs: Any) -> None:
        bootstrap()
        connection = connection or get_connection_from_queues(queues)
        assert connection
        self._redis_retry = WaitForRedis(rq_redis.probe)
        if kwargs.get("prepare_for_work", True):
            # From here on, calls wait for Redis. RQ installs its signal handlers later, and no job runs yet: just exit.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: os._exit(os.EX_OK))
            if (pool := parent_process()) and pool.pid:
                when_orphaned(pool.pid, stop_gently)
            connection.set_retry(self._redis_retry)
        super().__init__(queues, name, connection=connection, **{**kwargs, "worker_ttl": WORKER_TTL})
        self._queue = RQQueue(self)
        self._batches = BatchRunner(self._queue, self.name, settings().JOBSVC_CONCURRENCY)
        self._is_working = False
        self._pid = 0
        self._leave_by = math.inf  # monotonic seconds

    def work(self, *args: Any, max_jobs: int | None = None, **kwargs: Any) -> bool:
        """Work as RQ does, with our level for RQ's log, which RQ's pool doesn't pass to a restarted worker."""
        self._queue.is_one_by_one = max_jobs is not None
        attempts.warm_up()
        self._batches.children.for_many()  # forked now, so that the first job needn't wait for it
        self._pid = os.getpid()
        register_after_fork(self, JobsvcWorker._die_with_worker)  # for RQ's scheduler, a process of multiprocessing
        try:
            return bool(super().work(*args, **{**kwargs, "max_jobs": max_jobs, "logging_level": logs.RQ_LEVEL}))
        finally:
            self._batches.children.close()

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[RQJob, Queue] | None:
        """Dequeue as RQ does; if it runs until stopped, also run jobs that other workers refused."""
        while True:
            while not self._queue.may_take():
                if timeout is None:
                    return None
                time.sleep(1)
            if timeout is None or max_idle_time is not None or self._queue.is_one_by_one:
                return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
            self._run_withheld()
            # None if no job came within a second.
            if (result := super().dequeue_job_and_maintain_ttl(timeout, max_idle_time=1)) is not None:
                return result

    def _run_withheld(self) -> None:
        with self._working():  # race: no signal may interrupt between a job's claim and its start
            if withheld := self._queue.take_withheld(min(settings().JOBSVC_CONCURRENCY, MAX_THREADS)):
                self._run_batch(withheld)
        if self._stop_requested:
            raise StopRequested

    def execute_job(self, job: RQJob, queue: Queue) -> None:
        """Run a batch that begins with this job; run a foreign job as RQ does."""
        with self._working():
            if is_ours(job):
                self._run_batch([job.id])
            else:
                super().execute_job(job, queue)

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        self._is_working, self._queue.is_foreign_next = True, False
        try:
            yield
        finally:
            self._is_working = False

    def _run_batch(self, job_ids: list[str]) -> None:
        with self._redis_retry.suspended():
            self._batches.run(job_ids)

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Send RQ's heartbeat with this worker's job types; register the worker again if Redis has lost it."""
        super().heartbeat(timeout, pipeline)
        types = json.dumps(sorted(handlers.types()))
        if pipeline is not None:
            pipeline.hset(self.key, rq_workers.TYPES, types)
        elif self.connection.hset(self.key, rq_workers.TYPES, types) and self.birth_date:
            with self.connection.pipeline() as anew:
                anew.hset(self.key, mapping={**self.serialize(), "state": self.get_state()})
                worker_registration.register(self, anew)
                anew.execute()

    def handle_job_failure(
        self, job: RQJob, queue: Queue, started_job_registry: Any = None, exc_string: str = "", execution: Any = None
    ) -> None:
        """Handle the failure as RQ does, unless another worker has started the job since."""
        if is_ours(job) and is_running_elsewhere(self, job):
            step_aside(self, job, execution)
        else:
            super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)

    def handle_payload(self, message: Any) -> None:
        """Handle RQ's command: stop-job for one of many running jobs, kill-horse for all child processes."""
        payload = parse_payload(message)
        command, job_id = payload["command"], payload.get("job_id")
        ours = [one for one in list(self._batches.running.values()) if str(one.started.job_id) == job_id]
        if command in ("stop-job", "stop-execution") and ours:
            ours[0].post(Request.STOP_BY_RQ)
        elif command == "kill-horse" and self._batches.running:
            self._batches.children.kill()
        else:
            super().handle_payload(message)  # type: ignore[no-untyped-call]

    def subscribe(self) -> None:
        """Subscribe as RQ does, in a thread that leaves this process' signals to the main thread."""
        with block_signals():
            super().subscribe()  # type: ignore[no-untyped-call]

    def handle_warm_shutdown_request(self) -> None:
        """Shut down as RQ does; jobs still running after JOBSVC_SHUTDOWN_SECONDS are returned uncounted."""
        self._redis_retry.end()
        self._batches.stop()
        self._leave_by = time.monotonic() + settings().JOBSVC_SHUTDOWN_SECONDS + WORKER_SECONDS
        with block_signals():
            threading.Thread(target=self._leave_in_time, daemon=True).start()
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """Stop as RQ does, but ignore further signals, such as the pool's copy of a Ctrl-C."""
        try:
            super().request_force_stop(signum, frame)
        except SystemExit:
            self._leave_by = min(self._leave_by, time.monotonic() + FORCED_SECONDS)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: None)
            raise

    def _leave_in_time(self) -> None:
        """Kill this process and its descendants at its deadline, even if threads hang.

        The fork of a foreign job is killed a moment earlier, so that RQ can record that.
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
        """Shut down as RQ does, but without waiting for the scheduler.

        Of two simultaneous signals, RQ would take the second, handled after a wait of 1 s, for a request to stop now.
        """
        if not self._is_working:
            raise StopRequested
        self._stop_requested = True
        if self.scheduler and self.scheduler._process:
            self.scheduler._process.terminate()

    def stop_scheduler(self) -> None:
        """Stop the scheduler as RQ does, but kill it if it hangs."""
        if self.scheduler and (process := self.scheduler._process):
            process.terminate()
            process.join(max(min(SCHEDULER_SECONDS, self._leave_by - time.monotonic() - 0.2), 0))
            process.kill()

    def teardown(self) -> None:
        """Tear down as RQ does, as far as Redis is available."""
        with contextlib.suppress(RedisError, StopRequested):
            super().teardown()  # type: ignore[no-untyped-call]

    def main_work_horse(self, job: RQJob, queue: Queue) -> None:
        """Run a foreign job as RQ does, in a fork that ends with this worker."""
        with contextlib.suppress(Exception):  # fork: an error would go up into the worker's own loop
            self._die_with_worker()
        super().main_work_horse(job, queue)

    def _die_with_worker(self) -> None:
        # Processes started by handlers, which are children of its children, may outlive the worker.
        if os.getppid() == self._pid:
            when_orphaned(self._pid, lambda: os._exit(1))

    def _pubsub_exception_handler(self, exc: Exception, pubsub: PubSub, pubsub_thread: PubSubWorkerThread) -> None:
        if isinstance(exc, StopRequested):
            pubsub_thread.stop()
        else:
            super()._pubsub_exception_handler(exc, pubsub, pubsub_thread)
