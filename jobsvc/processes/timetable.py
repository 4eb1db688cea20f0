"""Deadlines for child processes and workers, after a timeout and at a shutdown."""

GRACE_SECONDS = 10.0
"""Time for a handler to stop after it was interrupted at its timeout."""

# At a shutdown: seconds after JOBSVC_SHUTDOWN_SECONDS, the time for a worker's handlers to finish.

CLEANUP_SECONDS = 2.0
"""When the process of an interrupted handler that still cleans up is killed."""

STORE_SECONDS = 2.5
"""When a worker stops trying to store results. Attempts whose results are not stored end as lost."""

WORKER_SECONDS = 2.7
"""When a worker exits, even if something still hangs."""

POOL_SECONDS = 2.85
"""When the pool kills the remaining workers and exits."""

EXIT_SECONDS = 3.0
"""When all processes have ended: the guaranteed limit."""
