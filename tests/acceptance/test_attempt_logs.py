"""Log lines of a handler are kept with its attempt for every outcome, under our worker and a stock one."""

import pytest

from tests.acceptance.test_lifecycle import TIME
from tests.support.service import Service

SAID = [
    ("INFO", "by ctx.log, with a \ufffd and a \ufffd"),
    ("INFO", "by a library"),
    ("WARNING", "by the root logger"),
    ("ERROR", "from a thread"),
    ("ERROR", "with its traceback"),
]


def said(attempt: dict) -> list[tuple[str, str]]:  # type: ignore[type-arg]
    return [(line["level"], line["message"].partition("\n")[0]) for line in attempt["logs"]]


def test_attempt_has_its_log_lines(stack: Service) -> None:
    job_id = stack.post("TALK")
    job = stack.until(job_id, "COMPLETED")
    [attempt] = stack.attempts(job_id)
    assert said(attempt) == SAID
    assert attempt["logs"][-1]["message"].endswith("LookupError: caught")
    assert [list(line) for line in attempt["logs"]] == [["time", "level", "message"]] * len(SAID)
    assert all(TIME.fullmatch(line["time"]) for line in attempt["logs"])
    assert (attempt["number"], attempt["outcome"], attempt["error"]) == (1, "completed", None)
    assert [attempt["startedAt"], attempt["finishedAt"]] == [job["startedAt"], job["finishedAt"]]


@pytest.mark.parametrize(
    ("end", "outcomes"),
    [
        ("raise", ["failed", "completed"]),
        ("discard", ["discarded"]),
        ("snooze", ["snoozed", "completed"]),
        ("hang", ["timeout", "completed"]),
    ],
)
def test_log_lines_are_kept_for_every_outcome(stack: Service, end: str, outcomes: list[str]) -> None:
    job_id = stack.post("TALK", {"end": end}, timeout=0.5, retry={"max": 1, "interval": 0.1})
    stack.until(job_id, "COMPLETED", "FAILED")
    attempts = stack.attempts(job_id)
    assert [attempt["outcome"] for attempt in attempts] == outcomes
    assert [said(attempt) for attempt in attempts] == [SAID] * len(outcomes)


def test_newest_lines_are_kept_and_dropped_ones_counted(stack: Service) -> None:
    job_id = stack.post("TALK", {"lines": 2000})
    stack.until(job_id, "COMPLETED")
    [attempt] = stack.attempts(job_id)
    assert len(attempt["logs"]) == 1000
    assert said(attempt)[0] == ("WARNING", f"{2000 + len(SAID) - 999} earlier lines dropped")
    assert said(attempt)[-1] == ("INFO", "line 1999")


def test_attempt_without_log_records_has_no_lines(stack: Service) -> None:
    job_id = stack.post(payload={"failAttempts": 1}, retry={"max": 1, "interval": 0.1})
    stack.until(job_id, "COMPLETED")
    assert [attempt["logs"] for attempt in stack.attempts(job_id)] == [[], []]
