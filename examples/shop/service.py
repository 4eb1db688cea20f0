"""The service for the example: what `make up` runs, with data of its own."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from jobsvc import devservices
from jobsvc.devservices.server import free_port


@contextmanager
def running(**env: str) -> Iterator[str]:
    """Run servers, API and worker until the end of the block; yields the API's URL, and sets DATABASE_URL."""
    os.environ.setdefault("JOBSVC_DEV_DIR", ".jobsvc/shop")
    port = str(free_port(None))
    url = f"http://127.0.0.1:{port}"
    env |= {"HOST": "127.0.0.1", "PORT": port, "JOBSVC_API_KEYS": "", "SHOP_JOBSVC_URL": url}
    up = subprocess.Popen(
        [sys.executable, "-m", "jobsvc.devservices", "up", str(os.getpid())],
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert up.stdout
    try:
        log = []
        while "jobsvc is up" not in (line := up.stdout.readline()):
            log.append(line)
            if not line:
                sys.exit(f"The service does not start:\n{''.join(log)}")
        threading.Thread(target=up.stdout.read, daemon=True).start()  # a full pipe would stop the service
        os.environ |= devservices.start()[0]
        yield url
    finally:
        up.terminate()
        up.wait()
