"""Our RQ worker: it takes jobs in batches and runs them in child processes.

While the worker is idle, RQ's main loop calls `JobsvcWorker.execute_job` with one job; that call then takes further
jobs itself, for as long as any is running. So jobs come from RQ in two ways: the first one by RQ's blocking dequeue,
the others by `rq_queue`.
"""

from jobsvc.worker.worker import JobsvcWorker as JobsvcWorker  # public name, for `rq worker -w`
