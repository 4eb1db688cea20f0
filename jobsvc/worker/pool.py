"""`make worker`: RQ's worker pool plus a relay process. The pool restarts workers that died."""

import contextlib
import logging
import math
import os
import signal
import time
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType

from rq.worker_pool import WorkerPool

from jobsvc import logs
from jobsvc.config import settings
from jobsvc.dispatch import rq_redis
from jobsvc.dispatch.rq_names import to_rq
from jobsvc.dispatch.server_check import check_servers
from jobsvc.execution.bootstrap import bootstrap
from jobsvc.processes.forks import freeze_objects
from jobsvc.processes.orphans import descendants, when_orphaned
from jobsvc.processes.pid_one import leave_pid_one
from jobsvc.processes.timetable import POOL_SECONDS
from jobsvc.worker.rq_queue import PausableQueue
from jobsvc.worker.worker import JobsvcWorker

logger = logging.getLogger("jobsvc.worker")


class Pool(WorkerPool):
    """RQ's pool with one more process, the relay, which is restarted like the workers."""

    _relay: BaseProcess | None = None
    _leave_by = math.inf  # monotonic seconds

    def request_stop(self, signum: int | None = None, frame: FrameType | None = None) -> None:
        """Stop as RQ does; the first call sets the deadline by which the pool ends, even if its workers still run."""
        self._leave_by = min(self._leave_by, time.monotonic() + settings().JOBSVC_SHUTDOWN_SECONDS + POOL_SECONDS)
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def all_workers_have_stopped(self) -> bool:
        """Wait for the workers to stop; kill those still running at the deadline. Always returns True."""
        workers = [data.process for data in self.worker_dict.values()]
        while (running := [one for one in workers if one.is_alive()]) and time.monotonic() < self._leave_by:
            wait([one.sentinel for one in running], max(self._leave_by - time.monotonic(), 0))
        for one in running:
            assert one.pid
            logger.error("pool: worker %d did not stop in time, it is killed", one.pid)
            below = descendants(one.pid)
            for pid in (one.pid, *below):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if self._relay:
            self._relay.kill()  # a sweep re-dispatches jobs claimed but not pushed
        return True

    def check_workers(self, respawn: bool = True) -> None:
        """Restart dead workers as RQ does, once a second, and the relay."""
        super().check_workers(respawn)
        if self.status != self.Status.STOPPED and (self._relay is None or not self._relay.is_alive()):
            # A daemon: multiprocessing ends it with the pool. A sweep re-dispatches jobs claimed but not pushed.
            self._relay = get_context("fork").Process(target=run_relay, args=(os.getpid(),), daemon=True)
            self._relay.start()


def run_relay(pool: int) -> None:
    """Run the relay in this process, until SIGTERM or until the process `pool` has ended."""
    from jobsvc.dispatch.relay import Relay

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is handled by the pool
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    when_orphaned(pool, lambda: os._exit(0))
    Relay().run()


def main() -> None:
    """Run the pool until SIGTERM or Ctrl-C; print `Worker Started` first."""
    leave_pid_one()
    bootstrap()
    logs.set_up()
    check_servers()
    print("Worker Started", flush=True)
    pool = Pool(
        [to_rq(name) for name in settings().JOBSVC_QUEUES],
        connection=rq_redis.connect(),
        num_workers=settings().JOBSVC_WORKERS,
        worker_class=JobsvcWorker,
        queue_class=PausableQueue,
        serializer=rq_redis.SERIALIZER,
    )
    freeze_objects()
    pool.start(logging_level=logs.RQ_LEVEL)
