"""How a program that can't start ends: one line on stderr, and a status of its own."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from jobsvc.errors import JobsvcError
from jobsvc.printable import one_line

GUNICORN_STATUS = 4
"""gunicorn takes 4 as "app failed to load" and stops; after any other status it would start workers for ever."""


def refuse_start(reason: str) -> NoReturn:
    """End the process with one line on stderr that says why it can't start, and a status other than 0."""
    status = GUNICORN_STATUS if "gunicorn.arbiter" in sys.modules else 1
    line = f"jobsvc: {one_line(reason)}\n"
    try:
        sys.stderr.write(line)
        sys.stderr.flush()
    except Exception:  # a handler's module may have closed or replaced it
        os.write(2, line.encode("utf-8", "replace"))
    if any(not one.daemon and one is not threading.current_thread() for one in threading.enumerate()):
        os._exit(status)  # a handler's module has started a thread that Python would wait for
    raise SystemExit(status)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """End the process with one line when the block raises a JobsvcError."""
    try:
        yield
    except JobsvcError as error:
        refuse_start(str(error))
