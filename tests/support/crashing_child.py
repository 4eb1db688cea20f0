"""As a handler's module: the processes that run handlers die as they are forked, as long as a file is there.

Each of them leaves a character in it. The file is named by TESTS_DEADLY.
"""

import os
from pathlib import Path

from jobsvc.worker.child import is_forking

DEADLY = Path(os.environ["TESTS_DEADLY"])


def _die() -> None:
    if is_forking() and DEADLY.exists():
        with DEADLY.open("a") as file:
            file.write("x")
        os._exit(1)


os.register_at_fork(after_in_child=_die)
