"""The settings file of a stock worker: `rq worker -c jobsvc.rqsettings -S json -s`.

Importing it loads the handlers once; processes forked by RQ inherit them.
"""

from typing import Any

from jobsvc.config import settings
from jobsvc.dispatch.rq_names import to_rq
from jobsvc.execution.bootstrap import bootstrap
from jobsvc.processes.refusal import exit_on_error
from jobsvc.servers import sentinel

with exit_on_error():  # also under `rq worker`, which would show a traceback
    REDIS_URL: str | None = settings().REDIS_URL
    SENTINEL: dict[str, Any] | None = None  # used by RQ's commands if REDIS_URL is None
    if sentinel.is_sentinel(settings().REDIS_URL):
        REDIS_URL, SENTINEL = None, sentinel.rq_settings(settings().REDIS_URL)
    QUEUES = [to_rq(name) for name in settings().JOBSVC_QUEUES]  # as RQ names them

bootstrap()
