"""When running attempts are reported on, and what is collected."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from jobsvc.execution.attempt_log import AttemptLog
from jobsvc.execution.deadline import Deadline
from jobsvc.execution.reporter import LINES_AFTER_SECONDS, Report, Reporter, Running
from jobsvc.jobs import StartedAttempt


def make(reporter_seconds: float = 0.05) -> tuple[Reporter, dict[int, Running]]:
    running: dict[int, Running] = {}
    return Reporter(running, reporter_seconds, reporter_seconds), running


def run(reporter: Reporter, running: dict[int, Running], slot: int = 0, age: float = 10) -> Running:
    started = StartedAttempt(uuid4(), "T", {}, 1, 1, 1, 60.0, "default", 0.0)
    log = AttemptLog()
    log.on_new = reporter.on_line
    running[slot] = Running(started, Deadline(started, reporter.on_progress), log, time.monotonic() - age)
    return running[slot]


@contextmanager
def collecting(reporter: Reporter) -> Iterator[list[Report]]:
    """Collect reports in a thread, as a child process does."""
    found: list[Report] = []
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            reporter.wait()
            reports = reporter.collect()
            found.extend(reports)
            reporter.done(reports)

    thread = threading.Thread(target=work)
    thread.start()
    yield found
    is_over.set()
    reporter.stop_waiting()
    thread.join(10)
    assert not thread.is_alive()


def until(found: list[Report], last: object) -> None:
    deadline = time.monotonic() + 10
    while not found or last not in (found[-1].progress and found[-1].progress["percent"], found[-1].lines):
        assert time.monotonic() < deadline, found
        time.sleep(0.005)


def test_last_of_many_progress_calls_is_reported() -> None:
    reporter, running = make()
    one = run(reporter, running)
    with collecting(reporter) as found:
        since = time.monotonic()
        for number in range(20_000):
            one.deadline.progress(number / 1000, None)
        one.deadline.progress(99, None)
        until(found, 99.0)
        seconds = time.monotonic() - since
    assert len(found) <= seconds / 0.05 + 2
    assert reporter._wake.qsize() + reporter._stop.qsize() <= 2


def test_lines_are_reported_once_in_order() -> None:
    reporter, running = make()
    one = run(reporter, running)
    with collecting(reporter) as found:
        for number in range(500):
            one.log.add(str(number))
            if number % 100 == 0:
                time.sleep(0.03)
        deadline = time.monotonic() + 10
        while one.log.has_unsent:
            assert time.monotonic() < deadline
            time.sleep(0.005)
    reported = [line["message"] for report in found if report.lines for line in report.lines.lines]
    assert reported == [str(number) for number in range(500)]


def test_lines_of_several_threads_are_numbered_in_order() -> None:
    log = AttemptLog()
    threads = [threading.Thread(target=lambda: [log.add("x") for _ in range(5000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = [number for _, number in log._lines]
    assert numbers == list(range(19_001, 20_001))


def test_lines_of_a_new_attempt_are_reported_later() -> None:
    reporter, running = make()
    one = run(reporter, running, age=LINES_AFTER_SECONDS - 0.2)
    one.log.add("x")
    reporter.wait()
    assert time.monotonic() - one.since >= LINES_AFTER_SECONDS
    [report] = reporter.collect()
    assert report.lines
    assert report.lines.last == 1


def test_empty_report_wakes_nothing_up() -> None:
    reporter, running = make()
    run(reporter, running)
    woken = threading.Event()
    thread = threading.Thread(target=lambda: (reporter.wait(), woken.set()))
    thread.start()
    assert not woken.wait(0.3)
    reporter.stop_waiting()
    thread.join(10)
    assert woken.is_set()


def test_unsent_reports_are_collected_again() -> None:
    reporter, running = make()
    one = run(reporter, running)
    one.deadline.progress(1, None)
    one.log.add("x")
    first = reporter.collect()
    reporter.again(first, 0.1)
    assert reporter.collect() == []
    one.deadline.progress(2, None)
    reporter.wait()
    [second] = reporter.collect()
    assert second.progress == {"percent": 2.0, "message": None}
    assert second.lines == first[0].lines


def test_next_attempt_in_a_slot_has_its_own_lines() -> None:
    reporter, running = make()
    one = run(reporter, running)
    one.log.add("x")
    reports = reporter.collect()
    other = run(reporter, running)
    other.log.add("y")
    reporter.done(reports)
    assert other.log.has_unsent
