"""Log lines as they come out of the programs: none is forged.

What strangers can have logged: a handler's messages, logger names, exceptions and their types, by our worker and by
a stock one; and paths of requests, which go through the same formatter. How each character is escaped is in
tests/unit/test_logs.py.
"""

import signal

import pytest

from tests.support.service import WORKERS, Service


def check(output: str) -> None:
    """Each line is a record of ours, or a line of a traceback; none is what a stranger wrote."""
    for line in output.split("\n"):
        assert line.isprintable(), ascii(line)
        assert not line.startswith("12:00:00 ERROR"), output


@pytest.mark.parametrize("kind", sorted(WORKERS))
def test_handler_text_cannot_forge_a_log_line(apart: dict[str, str], kind: str) -> None:
    service = Service({**apart, "JOBSVC_HANDLERS": "tests.support.handlers.startup", "JOBSVC_SWEEP_SECONDS": "0.5"})
    try:
        worker = service.worker(kind)
        service.until(service.post("FORGE"), "FAILED")
        worker.signal(signal.SIGTERM)
        worker.wait()
        check(worker.output)
        assert r"ERROR   a\n12:00:00 ERROR   x: forged" in worker.output  # the logger's name
        assert "\n  Traceback (most recent call last):\n" in worker.output
        assert r"\x1b[2J\x9b2J\u2028\u202e" in worker.output
    finally:
        service.close()
