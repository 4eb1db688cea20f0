"""Times by which processes of handlers end: after a timeout, and at a shutdown."""

GRACE_SECONDS = 10.0
"""How long a handler may take to stop, once it was told that its time is up."""

# Of a shutdown: seconds after JOBSVC_SHUTDOWN_SECONDS, which a worker's handlers have to finish.

CLEANUP_SECONDS = 2.0
"""How long the clean-up of a handler may take that was interrupted; then its process is killed."""

STORE_SECONDS = 2.5
"""When a worker stops trying to store outcomes. What it could not store ends as lost."""

WORKER_SECONDS = 2.7
"""When a worker ends, whatever still hangs."""

POOL_SECONDS = 2.85
"""When the pool kills the workers that are left, and ends."""

EXIT_SECONDS = 3.0
"""When all of it has ended: the promise."""
