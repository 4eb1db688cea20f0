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


def test_as_many_lines_as_fit_are_all_kept() -> None:
    log = AttemptLog()
    for number in range(MAX_LINES):
        log.add(str(number))
    assert messages(log) == [str(number) for number in range(MAX_LINES)]


def test_of_one_line_more_two_give_way_to_their_number() -> None:
    log = AttemptLog()
    for number in range(MAX_LINES + 1):
        log.add(str(number))
    assert messages(log)[:2] == ["2 earlier lines dropped", "2"]
    assert len(log.kept().shown()) == MAX_LINES


def test_text_is_bounded_in_bytes() -> None:
    log = AttemptLog()
    for _ in range(100):
        log.add("ü" * 1024)
    kept = MAX_BYTES // 2048
    assert messages(log) == [f"{100 - kept} earlier lines dropped", *["ü" * 1024] * kept]


def test_a_long_line_is_cut() -> None:
    log = AttemptLog()
    log.add("x" * MAX_MESSAGE)
    log.add("x" * (MAX_MESSAGE + 1))
    assert messages(log) == ["x" * MAX_MESSAGE, "x" * (MAX_MESSAGE - 1) + "…"]


def test_the_longest_lines_there_can_be_leave_some() -> None:
    log = AttemptLog()
    for _ in range(10):
        log.add("\U0001f600" * (MAX_MESSAGE + 1))
    assert len(log.kept().shown()) == 5  # one of them is their number


def test_nothing_is_kept_outside_an_attempt() -> None:
    log = AttemptLog()
    library.warning("before")
    with log:
        library.warning("within")
    library.warning("after")
    assert messages(log) == ["within"]


def test_debug_records_are_not_kept_even_where_they_are_let_through() -> None:
    log = AttemptLog()
    library.setLevel(logging.DEBUG)
    try:
        with log:
            library.debug("debug")
            library.info("info")
    finally:
        library.setLevel(logging.NOTSET)
    assert messages(log) == ["info"]


def test_attempts_side_by_side_keep_their_own() -> None:
    gate = threading.Barrier(4)

    def run(name: str) -> list[str]:
        log = AttemptLog()
        with log:
            gate.wait(10)
            library.warning("from %s", name)
            inherited = threading.Thread(target=copy_context().run, args=(library.warning, f"with {name}"))
            inherited.start()
            inherited.join()
            stray = threading.Thread(target=library.warning, args=("of nobody known",))
            stray.start()
            stray.join()
            gate.wait(10)
        return messages(log)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, "abcd")) == [[f"from {name}", f"with {name}"] for name in "abcd"]


def test_a_record_that_cannot_be_shown_harms_nothing() -> None:
    log = AttemptLog()
    raising, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        with log:
            library.warning("%d", "no number")
            library.warning("next")
    finally:
        logging.raiseExceptions = raising
    assert messages(log) == ["next"]


def test_a_handler_that_sets_logging_up_anew_is_still_heard() -> None:
    root = logging.getLogger()
    before = root.handlers[:]
    log = AttemptLog()
    try:
        root.handlers.clear()
        with log:
            library.warning("heard")
    finally:
        root.handlers[:] = before
    assert messages(log) == ["heard"]
