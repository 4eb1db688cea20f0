"""Checks that this WSGI server lets threads run between requests: the relay and waiting clients need them.

Under some WSGI servers threads don't run: uWSGI without --enable-threads keeps the GIL while it waits for a request,
and uWSGI that loads the application before its forks doesn't notify Python, so threads run in the first process only.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable
from typing import Any

from flask import Flask

from jobsvc.processes.orphans import block_signals

logger = logging.getLogger("jobsvc.api")

ANSWER_SECONDS = 0.3
"""Delay before the thread answers, so that the request in which it was asked has ended by then."""

QUIET_SECONDS = 2.0
"""If the thread has not answered in a pause of this length between requests, threads don't run."""

MARGIN_SECONDS = 0.1
"""An answer this shortly before a request doesn't count: the request itself may have let the thread run."""

WARNING = (
    "threads do not run in this process: jobs start late, by the sweep of a worker, and no client can wait for them. "
    "Start uWSGI with --enable-threads and --lazy-apps, or another server with threads"
)


class ThreadCheck:
    """WSGI middleware that asks a thread to answer in the pause before the next request; warns at most once.

    It removes itself from the application once the result is known. A multithreaded server passes at once.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._inner = app.wsgi_app
        self._start_afresh()
        os.register_at_fork(after_in_child=self._start_afresh)

    def _start_afresh(self) -> None:
        self._pid = os.getpid()
        self._is_over = False
        self._question = threading.Event()
        self._answered_at: float | None = None
        self._asked_at: float | None = None
        self._ask(by_request=False)
        with block_signals():
            threading.Thread(target=self._answer, name="thread check", daemon=True).start()

    def _ask(self, by_request: bool) -> None:
        self._answered_at = None
        self._asked_at = time.monotonic()
        self._is_asked_by_request = by_request
        self._question.set()

    def _answer(self) -> None:
        while self._question.wait() and not self._is_over:
            self._question.clear()
            time.sleep(ANSWER_SECONDS)
            self._answered_at = time.monotonic()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Run the check, then answer the request as usual."""
        if self._pid != os.getpid():
            self._end(is_running=False)  # a fork that Python was not notified of
        elif environ.get("wsgi.multithread"):
            self._end(is_running=True)
        elif not self._is_over:
            self._check(time.monotonic())
        try:
            return self._inner(environ, start_response)
        finally:
            if self._asked_at is None and not self._is_over:
                self._ask(by_request=True)

    def _check(self, now: float) -> None:
        if self._asked_at is None:
            return
        if now - self._asked_at >= QUIET_SECONDS:
            is_running = self._answered_at is not None and self._answered_at < now - MARGIN_SECONDS
            # An answer to the first question proves nothing: loading the application may have let the thread run.
            if self._is_asked_by_request or not is_running:
                self._end(is_running)
        self._asked_at = None  # ask again: this request may let the thread run

    def _end(self, is_running: bool) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._question.set()  # ends the thread
        if self._app.wsgi_app is self:
            self._app.wsgi_app = self._inner  # type: ignore[method-assign]
        if not is_running:
            logger.warning(WARNING)


def init_app(app: Flask) -> None:
    """Check during the first requests of each process whether threads run."""
    app.wsgi_app = ThreadCheck(app)  # type: ignore[method-assign]
