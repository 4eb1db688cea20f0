"""`python -m jobsvc.devservices.program PARENT WATCHER api|worker`: the API or a worker of `jobsvc up`."""

import os
import sys
import time
from contextlib import suppress

from jobsvc.processes.orphans import stop_gently, when_orphaned


def main(parent: int, watcher: int, program: str) -> None:
    """Run the program until SIGTERM, or until the processes `parent` and `watcher` have both exited.

    If only the parent has, the watcher sends the SIGTERM: at a second one a worker would not wait for its jobs.
    """

    def stop() -> None:
        with suppress(ProcessLookupError):
            while watcher:
                os.kill(watcher, 0)
                time.sleep(0.5)
        stop_gently()

    when_orphaned(parent, stop)
    if program == "api":
        from jobsvc import serve

        serve.main()
    else:
        from jobsvc.worker import pool

        pool.main()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
