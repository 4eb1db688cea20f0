"""As a handler's module: the processes that run handlers die as they are forked, as long as a file is there.

Each of them leaves a character in it. The file is named by TESTS_DEADLY.
"""

import os
from pathlib import Path
from typing import NoReturn

from jobsvc.worker.child_main import ChildMain

DEADLY = Path(os.environ["TESTS_DEADLY"])
run = ChildMain.run


def run_or_die(child: ChildMain) -> NoReturn:
    if DEADLY.exists():
        with DEADLY.open("a") as file:
            file.write("x")
        os._exit(1)
    run(child)


ChildMain.run = run_or_die  # type: ignore[method-assign]
