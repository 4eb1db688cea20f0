"""One-time set-up of a process before it uses handlers."""

from functools import lru_cache

from rq.logutils import colorizer

from jobsvc import handlers, logs, tracing
from jobsvc.config import settings
from jobsvc.dispatch import ownership, rq_redis
from jobsvc.dispatch.server_check import check_postgres
from jobsvc.processes.refusal import exit_on_error


@lru_cache(maxsize=1)
def bootstrap() -> None:
    """Load the handlers and set up logs and tracing; on a wrong setting, exit with a one-line error.

    Call before forking, so that forked processes inherit all of it.
    """
    with exit_on_error():
        handlers.load(settings().JOBSVC_HANDLERS, settings().JOBSVC_QUEUES)
    tracing.set_up()
    logs.to_stderr()  # otherwise a stock worker uses RQ's log format, which escapes nothing
    colorizer.notty = True  # no colours: their codes would be escaped
    if ownership.is_rq_worker():  # other programs check both servers
        check_postgres()
        ownership.check_at_start(rq_redis.connection())
