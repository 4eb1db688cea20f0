"""Exit of a program that can't start: one line on stderr, and an exit status."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from jobsvc.errors import JobsvcError
from jobsvc.printable import one_line

GUNICORN_STATUS = 4
"""gunicorn takes 4 as "app failed to load" and stops; after any other status it restarts workers for ever."""


def refuse_start(reason: str) -> NoReturn:
    """Exit with the reason as one line on stderr, and a non-zero status."""
    status = GUNICORN_STATUS if "gunicorn.arbiter" in sys.modules else 1
    line = f"jobsvc: {one_line(reason)}\n"
    try:
        sys.stderr.write(line)
        sys.stderr.flush()
    except Exception:  # a handler's module may have closed or replaced it
        os.write(2, line.encode("utf-8", "replace"))
    if any(not one.daemon and one is not threading.current_thread() for one in threading.enumerate()):
        os._exit(status)  # a handler's module started a thread for which Python would wait
    raise SystemExit(status)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Exit with one line on stderr if the block raises a JobsvcError."""
    try:
        yield
    except JobsvcError as error:
        refuse_start(str(error))
