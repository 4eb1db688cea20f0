"""Our RQ worker: it takes jobs in batches, and runs them in child processes.

RQ's main loop calls `JobsvcWorker.execute_job` with one job of an idle worker; that call then takes further jobs by
itself, for as long as any runs. So jobs come from RQ in two ways: one by RQ's blocking dequeue, the others by
`rq_queue`.
"""

from jobsvc.worker.worker import JobsvcWorker as JobsvcWorker  # a published name, by which `rq worker -w` finds it
