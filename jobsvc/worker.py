"""RQ's worker, which runs our jobs by the batch (see `batching`), and any other as RQ does, a fork for each."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from multiprocessing import parent_process
from typing import Any, cast
from uuid import uuid4

from redis import Redis, RedisError
from redis.client import PubSub, PubSubWorkerThread
from rq import Queue, Retry, Worker
from rq.command import parse_payload
from rq.exceptions import DeserializationError, NoSuchJobError, StopRequested
from rq.executions import Execution
from rq.job import Job as RQJob
from rq.suspension import is_suspended
from rq.utils import get_connection_from_queues

from jobsvc import execution as attempts
from jobsvc import jobs, logs, rqview
from jobsvc.batching import Batches
from jobsvc.clock import GRACE_SECONDS
from jobsvc.config import settings
from jobsvc.held import Ended, Held
from jobsvc.horse import is_forking
from jobsvc.jobs import Verdict
from jobsvc.orphans import signals_kept, stop_gently, when_orphaned
from jobsvc.patience import Patience
from jobsvc.pausable import PausableQueue
from jobsvc.pushing import FAILURE_TTL, RESULT_TTL, RUN, SERIALIZER
from jobsvc.rqends import show_completed
from jobsvc.states import Outcome, Status

WORKER_TTL = 20
"""Seconds. RQ waits 15 less for a job, and 5 less for a Redis that doesn't answer; its own 420 would be minutes."""

SCHEDULER_SECONDS = 3
"""How long RQ's scheduler may take to end."""

LAST_RESORT_SECONDS = 5
"""How long a worker that was told to stop may take beyond what its attempts may."""

CANCELLED = "Cancelled: the job was cancelled"
"""What RQ shows for the traceback of an attempt that was called off."""

BEAT_SECONDS = 1.0
"""How often a worker that runs something shows that it lives."""


class JobsvcWorker(Worker):
    """RQ's worker, which takes, starts and finishes jobs many at a time, and waits for Redis.

    It stops when the pool that started it has died, and its children die with it: the processes of
    its handlers, and RQ's scheduler.
    """

    def __init__(self, queues: Any, name: str | None = None, *, connection: Redis | None = None, **kwargs: Any) -> None:
        from jobsvc import rqsettings

        connection = connection or get_connection_from_queues(queues)
        assert connection
        self._patience = Patience(rqsettings.probe)
        if kwargs.get("prepare_for_work", True):
            # From here on Redis is waited for. RQ's own handlers come later, and there is nothing to finish yet.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: os._exit(os.EX_OK))
            if (pool := parent_process()) and pool.pid:
                when_orphaned(pool.pid, stop_gently)
            connection.set_retry(self._patience)
        super().__init__(queues, name, connection=connection, **{**kwargs, "worker_ttl": WORKER_TTL})
        self._batches = Batches(self, self.name, settings().JOBSVC_CONCURRENCY)
        self._shown: dict[Held, tuple[RQJob, Execution]] = {}
        self._is_one_by_one = False
        self._is_working = False
        self._is_held_up = False  # a job of others is next
        self._next_beat = 0.0

    def work(self, *args: Any, max_jobs: int | None = None, **kwargs: Any) -> bool:
        """As RQ's, at the level that RQ's log has here, which its pool forgets for a worker that it starts again."""
        self._is_one_by_one = max_jobs is not None
        attempts.warm_up()
        self._batches.stable.for_many()  # so that the first job needn't wait for its process
        os.register_at_fork(after_in_child=self._die_with_worker)
        try:
            return bool(super().work(*args, **{**kwargs, "max_jobs": max_jobs, "logging_level": logs.RQ_LEVEL}))
        finally:
            self._batches.stable.close()

    def execute_job(self, job: RQJob, queue: Queue) -> None:
        """Run a batch that begins with this job; one that isn't ours, as RQ does."""
        self._is_working, self._is_held_up = True, False
        try:
            if not _is_ours(job):
                super().execute_job(job, queue)
            else:
                with self._patience.suspended():
                    self._batches.run([job.id])
        finally:
            self._is_working = False

    # What the batches need of RQ

    def take(self, most: int) -> list[str]:
        """Up to `most` ids, in the order of the queues; none while the worker is suspended."""
        taken: list[str] = []
        if self._is_one_by_one or self._is_held_up or self._stop_requested or is_suspended(self.connection):
            return taken
        for queue in PausableQueue.served(self._ordered_queues):
            if len(taken) < most:
                popped = cast(list[bytes] | None, self.connection.lpop(queue.key, most - len(taken)))
                taken += [job_id.decode() for job_id in popped or []]
        return taken

    def give_back(self, job_ids: Iterable[str]) -> None:
        """To the front of their queues."""
        for job in RQJob.fetch_many(list(job_ids), self.connection, SERIALIZER):
            if job:
                Queue(job.origin, self.connection).push_job_id(job.id, at_front=True)

    def refused(self, job_ids: Iterable[str]) -> None:
        """Leave a job of others to RQ, and put right what RQ shows of ours."""
        for job in RQJob.fetch_many(list(job_ids), self.connection, SERIALIZER):
            if job and not _is_ours(job):
                self._is_held_up = True
                self.give_back([job.id])
            elif job:
                rqview.step_aside(self, job, None)

    def show_begun(self, held: Iterable[Held]) -> None:
        """As RQ's worker does before it forks, and its fork before it runs the job."""
        for one in held:
            job = self._rq_job(one)
            execution = self.prepare_execution(job)
            self._shown[one], one.execution_id = (job, execution), execution.id
            self.prepare_job_execution(job)

    def show_ended(self, ended: list[Ended]) -> None:
        """In one round trip those that completed, and each of the others as RQ does."""
        done = [one for one in ended if one.verdict and one.verdict.status == Status.COMPLETED]
        self._show_completed(done)
        for one in ended:
            if one.end.begun and not (one.verdict and one.verdict.status == Status.COMPLETED):
                self._show_otherwise(one)
            self._shown.pop(one.held, None)
        if keys := {one.verdict.concurrency_key for one in ended if one.verdict and one.verdict.concurrency_key}:
            attempts.let_next_in(keys, self.connection)
        if returned := [one for one in ended if one.end.outcome == Outcome.HANDED_BACK]:
            attempts.dispatch(lambda: jobs.claim_due(len(returned)), self.connection)

    def _show_completed(self, done: list[Ended]) -> None:
        if not done:
            return
        with self.connection.pipeline(transaction=False) as pipeline:
            for one in done:
                if shown := self._shown.get(one.held):
                    self.cleanup_execution(shown[0], pipeline, shown[1])
            pipeline.hincrby(self.key, "successful_job_count", len(done))
            self.increment_total_working_time(timedelta(seconds=sum(one.seconds for one in done)), pipeline)
            for one in show_completed(pipeline, self.name, done):
                job = self._rq_job(one.held)
                Queue(job.origin, self.connection, serializer=SERIALIZER).enqueue_dependents(job)

    def _show_otherwise(self, one: Ended) -> None:
        _, execution = self._shown.get(one.held, (None, None))
        try:
            job = self.job_class.fetch(str(one.held.started.job_id), self.connection, SERIALIZER)
        except NoSuchJobError:
            return
        if one.verdict is None or one.end.outcome == Outcome.HANDED_BACK:
            rqview.step_aside(self, job, execution)
        else:
            self._show_not_completed(one, one.verdict, self._ended_job(one, job), execution)

    def _show_not_completed(self, one: Ended, verdict: Verdict, job: RQJob, execution: Execution | None) -> None:
        queue = Queue(job.origin, self.connection, serializer=SERIALIZER)
        execution = execution or Execution(uuid4().hex, job.id, self.connection)  # RQ was told of none
        if verdict.status == Status.SCHEDULED:  # snoozed
            retry = Retry(max=2**31, interval=attempts.seconds_until(verdict.due_at))
            self.handle_job_retry(job, queue, retry, job.started_job_registry, execution)
            return
        attempts.plan_retries(job, verdict)
        if one.held.is_stopped_by_rq:
            self._stopped_job_id = job.id
        failure = one.end.failure
        text = (failure.traceback or f"{failure.type}: {failure.message}") if failure else CANCELLED
        self.handle_job_failure(job, queue, exc_string=text, execution=execution)

    def _rq_job(self, held: Held) -> RQJob:
        job = RQJob(str(held.started.job_id), self.connection, SERIALIZER)
        job.origin, job.description = held.started.queue, held.started.type
        job.timeout, job.result_ttl, job.failure_ttl = int(held.started.timeout), RESULT_TTL, FAILURE_TTL
        job.func_name = RUN
        return job

    def _ended_job(self, one: Ended, job: RQJob) -> RQJob:
        job.ended_at = job.last_heartbeat = datetime.now(UTC)
        job.started_at = job.ended_at - timedelta(seconds=one.seconds)
        job.worker_name = self.name
        return job

    def beat(self) -> None:
        """Now and then as RQ's worker does between two jobs, and while one runs."""
        if time.monotonic() < self._next_beat:
            return
        self._next_beat = time.monotonic() + BEAT_SECONDS
        self.heartbeat()
        for job, execution in self._shown.values():
            if (datetime.now(UTC) - execution.last_heartbeat).total_seconds() > self.job_monitoring_interval:
                self.maintain_heartbeats(job, execution)
        if self.should_run_maintenance_tasks:
            self.run_maintenance_tasks()  # type: ignore[no-untyped-call]

    # RQ's commands, and the end of the worker

    def handle_payload(self, message: Any) -> None:
        """As RQ's, of one of many executions, or of the processes of all of them."""
        payload = parse_payload(message)
        command, job_id = payload["command"], payload.get("job_id")
        ours = [one for one in list(self._batches.held.values()) if str(one.started.job_id) == job_id]
        if command in ("stop-job", "stop-execution") and ours:
            ours[0].is_stopped_by_rq = ours[0].is_called_off = True
        elif command == "kill-horse" and self._batches.held:
            self._batches.stable.kill()
        else:
            super().handle_payload(message)  # type: ignore[no-untyped-call]

    def subscribe(self) -> None:
        """As RQ's, in a thread that leaves this process' signals to the main one."""
        with signals_kept():
            super().subscribe()  # type: ignore[no-untyped-call]

    def handle_warm_shutdown_request(self) -> None:
        """Tell what runs, too: it goes back uncounted if it doesn't end within JOBSVC_SHUTDOWN_SECONDS."""
        self._patience.end()
        self._batches.stop()
        with signals_kept():
            threading.Thread(target=self._last_resort, daemon=True).start()
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]

    def _last_resort(self) -> None:
        """End this process if something hangs, but not while it holds what Postgres has to know."""
        time.sleep(settings().JOBSVC_SHUTDOWN_SECONDS + GRACE_SECONDS + LAST_RESORT_SECONDS)
        while self._batches.holds_ends or self.horse_pid:
            time.sleep(1)
        os._exit(1)

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
            process.join(SCHEDULER_SECONDS)
            process.kill()

    def teardown(self) -> None:
        """As RQ's, as far as Redis is there."""
        with contextlib.suppress(RedisError, StopRequested):
            super().teardown()  # type: ignore[no-untyped-call]

    def _die_with_worker(self) -> None:
        if not is_forking():
            when_orphaned(os.getppid(), lambda: os._exit(1))

    def _pubsub_exception_handler(self, exc: Exception, pubsub: PubSub, pubsub_thread: PubSubWorkerThread) -> None:
        if isinstance(exc, StopRequested):
            pubsub_thread.stop()
        else:
            super()._pubsub_exception_handler(exc, pubsub, pubsub_thread)

    def handle_job_failure(
        self, job: RQJob, queue: Queue, started_job_registry: Any = None, exc_string: str = "", execution: Any = None
    ) -> None:
        """As RQ's, unless another worker has started the job since."""
        if _is_ours(job) and rqview.is_anothers(self, job):
            rqview.step_aside(self, job, execution)
        else:
            super().handle_job_failure(job, queue, started_job_registry, exc_string, execution)


def _is_ours(job: RQJob) -> bool:
    try:
        return job.func_name == RUN
    except DeserializationError:  # RQ shows it as failed
        return False
