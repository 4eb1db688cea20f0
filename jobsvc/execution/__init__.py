"""One attempt of a job: its handler, deadline, log and result, and `run`, which RQ calls."""

from jobsvc.execution.rq_entry import run as run  # `jobsvc.execution.run` is stored in Redis with every queued job
