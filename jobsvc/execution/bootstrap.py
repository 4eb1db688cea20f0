"""What a process does once, before it uses handlers."""

from functools import lru_cache

from rq.logutils import colorizer

from jobsvc import handlers, logs, tracing
from jobsvc.config import settings
from jobsvc.dispatch import ownership, rq_redis
from jobsvc.processes.refusal import exit_on_error


@lru_cache(maxsize=1)
def bootstrap() -> None:
    """Load the handlers, and set up logs and tracing; ends the process with one line if a setting is wrong.

    Called before anything forks, so that forked processes have all of it.
    """
    with exit_on_error():
        handlers.load(settings().JOBSVC_HANDLERS, settings().JOBSVC_QUEUES)
    tracing.set_up()
    logs.to_stderr()  # or a stock worker would set up RQ's own lines, which escape nothing
    colorizer.notty = True  # its colours would be escaped
    if ownership.is_rq_worker():  # other programs check both servers
        ownership.check_at_start(rq_redis.connection())
