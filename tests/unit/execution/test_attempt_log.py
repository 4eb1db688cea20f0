"""The log of an attempt: whose a record is, and how much of it is kept."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from jobsvc.execution.attempt_log import MAX_MESSAGE, AttemptLog
from jobsvc.jobs.log_lines import MAX_BYTES, MAX_LINES

library = logging.getLogger("some.library")


def messages(log: AttemptLog) -> list[str]:
    return [line["message"] for line in log.kept().shown()]


def test_lines_within_the_limit_are_all_kept() -> None:
    log = AttemptLog()
    for number in range(MAX_LINES):
        log.add(str(number))
    assert messages(log) == [str(number) for number in range(MAX_LINES)]


def test_one_line_too_many_replaces_two_by_a_count() -> None:
    log = AttemptLog()
    for number in range(MAX_LINES + 1):
        log.add(str(number))
    assert messages(log)[:2] == ["2 earlier lines dropped", "2"]
    assert len(log.kept().shown()) == MAX_LINES


def test_text_size_is_bounded_in_bytes() -> None:
    log = AttemptLog()
    for _ in range(100):
        log.add("ü" * 1024)
    kept = MAX_BYTES // 2048
    assert messages(log) == [f"{100 - kept} earlier lines dropped", *["ü" * 1024] * kept]


def test_long_line_is_cut() -> None:
    log = AttemptLog()
    log.add("x" * MAX_MESSAGE)
    log.add("x" * (MAX_MESSAGE + 1))
    assert messages(log) == ["x" * MAX_MESSAGE, "x" * (MAX_MESSAGE - 1) + "…"]


def test_longest_possible_lines_still_leave_some() -> None:
    log = AttemptLog()
    for _ in range(10):
        log.add("\U0001f600" * (MAX_MESSAGE + 1))
    assert len(log.kept().shown()) == 5  # one of them is their number


def test_records_outside_an_attempt_are_not_kept() -> None:
    log = AttemptLog()
    library.warning("before")
    with log:
        library.warning("within")
    library.warning("after")
    assert messages(log) == ["within"]


def test_debug_records_are_never_kept() -> None:
    log = AttemptLog()
    library.setLevel(logging.DEBUG)
    try:
        with log:
            library.debug("debug")
            library.info("info")
    finally:
        library.setLevel(logging.NOTSET)
    assert messages(log) == ["info"]


def test_concurrent_attempts_keep_their_own_lines() -> None:
    barrier = threading.Barrier(4)

    def run(name: str) -> list[str]:
        log = AttemptLog()
        with log:
            barrier.wait(10)
            library.warning("from %s", name)
            inherited = threading.Thread(target=copy_context().run, args=(library.warning, f"with {name}"))
            inherited.start()
            inherited.join()
            stray = threading.Thread(target=library.warning, args=("of an unknown thread",))
            stray.start()
            stray.join()
            barrier.wait(10)
        return messages(log)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, "abcd")) == [[f"from {name}", f"with {name}"] for name in "abcd"]


def test_unprintable_record_causes_no_error() -> None:
    log = AttemptLog()
    raising, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        with log:
            library.warning("%d", "no number")
            library.warning("next")
    finally:
        logging.raiseExceptions = raising
    assert messages(log) == ["next"]


def test_records_are_kept_after_logging_was_reconfigured() -> None:
    root = logging.getLogger()
    before = root.handlers[:]
    log = AttemptLog()
    try:
        root.handlers.clear()
        with log:
            library.warning("kept")
    finally:
        root.handlers[:] = before
    assert messages(log) == ["kept"]
