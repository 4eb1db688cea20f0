"""`make worker`: RQ's worker pool, with a relay beside it. The pool starts a worker again that died."""

import os
import signal
from multiprocessing import get_context
from multiprocessing.process import BaseProcess

from redis import Redis
from rq.worker_pool import WorkerPool

from jobsvc import logs
from jobsvc.config import settings
from jobsvc.orphans import when_orphaned
from jobsvc.pausable import PausableQueue
from jobsvc.worker import JobsvcWorker


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
    from jobsvc import rqsettings  # reads the settings and loads the handlers, before anything forks

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
