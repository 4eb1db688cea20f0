"""Measure the first `make up` of a fresh clone, with empty caches: `python3 -m bench.set_up ROUNDS [COMMIT ...]`.

Prints the time until the API answers, the processor time of that, and the size of .venv. Needs only Python and make.
"""

import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path

PORT = 3987
LONGEST_SECONDS = 1800
"""Maximum time of a round."""


def answers() -> bool:
    """Return True if the API answers."""
    connection = HTTPConnection("127.0.0.1", PORT, timeout=1)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def measure(commit: str) -> tuple[float, float, float]:
    """Return the seconds until `make up` in a clone is up, the processor seconds of all it ran, and the MB of .venv."""
    folder = Path(tempfile.mkdtemp(prefix="jobsvc-set-up-"))
    subprocess.run(["git", "clone", "-q", ".", folder], check=True)
    subprocess.run(["git", "checkout", "-q", commit], cwd=folder, check=True)
    env = {**os.environ, "PORT": str(PORT), "PIP_NO_CACHE_DIR": "1", "UV_NO_CACHE": "1", "JOBSVC_DEV_DIR": ".jobsvc"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    up = subprocess.Popen(["make", "up"], cwd=folder, env=env, stdout=sys.stderr, start_new_session=True)
    try:
        while not answers():
            if up.poll() is not None or time.monotonic() - started > LONGEST_SECONDS:
                sys.exit("set_up: the API does not answer")
            time.sleep(0.05)
        seconds = time.monotonic() - started
        files = [path.lstat() for path in (folder / ".venv").rglob("*")]
    finally:
        os.killpg(up.pid, signal.SIGTERM)  # a shell lets programs in its background ignore SIGINT
        up.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    shutil.rmtree(folder)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, busy, sum(file.st_blocks * 512 for file in files) / 1e6


def main() -> None:
    """Print the best and the median round of each commit."""
    rounds, commits = int(sys.argv[1]), sys.argv[2:] or ["HEAD"]
    for commit in commits:
        seconds, busy, size = zip(*(measure(commit) for _ in range(rounds)), strict=True)
        print(
            f"{commit}: up after {min(seconds):.1f} s (median {statistics.median(seconds):.1f} s), "
            f"processor {min(busy):.1f} s, .venv {size[0]:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
