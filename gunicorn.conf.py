"""gunicorn's settings, which it reads in the folder in which it is started: `gunicorn wsgi:app`.

Elsewhere name this file: `gunicorn -c …/gunicorn.conf.py 'jobsvc.app:create_app()'`. The command line wins over it.
"""

import os
import threading
import time

threads = 32
"""Requests at once. Event streams and `Prefer: wait` need threads, and take up to 8 of them."""

graceful_timeout = 10
"""Seconds for requests that are at work when a worker is told to stop."""

_CHECK_SECONDS = 0.2


def post_worker_init(worker):
    """Have a worker that stops end the event streams and waits of clients, instead of waiting for their end."""
    watcher = getattr(worker.wsgi, "extensions", {}).get("job_watcher")
    if watcher is None:  # another application, or one that is wrapped
        return

    def close_watcher():
        # Checked, since gunicorn has no hook at this point, and more reasons to stop a worker than signals.
        while worker.alive and os.getppid() == worker.ppid:
            time.sleep(_CHECK_SECONDS)
        watcher.close()

    threading.Thread(target=close_watcher, name="stop", daemon=True).start()
