"""The filters of the console's templates."""

import json
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest

from jobsvc.db.models import Job
from jobsvc.jobs import Counted, current_time
from jobsvc.states import Status
from jobsvc.ui import formats

NOON = datetime(2026, 1, 2, 12, 0, 0, 123_456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "now"),
        (0.5, "now"),
        (-0.5, "now"),
        (5.5, "5 s ago"),
        (-5.5, "in 5 s"),
        (59.5, "59 s ago"),
        (61, "1 min ago"),
        (7300, "2 h ago"),
        (-7300, "in 2 h"),
        (86400 * 400 + 60, "400 d ago"),
    ],
)
def test_relative_time_has_one_unit(seconds: float, words: str) -> None:
    assert formats.ago(current_time() - timedelta(seconds=seconds)) == words


@pytest.mark.parametrize("text", ["2026-01-02T12:00:00.123Z", "2026-01-02T13:00:00.123+01:00"])
def test_time_of_the_api_is_a_datetime(text: str) -> None:
    assert formats.moment(text) == NOON.replace(microsecond=123_000)
    assert formats.moment(NOON) is NOON


def test_exact_time_is_in_utc_with_milliseconds() -> None:
    assert formats.exact(NOON) == "2026-01-02 12:00:00.123 UTC"
    assert formats.exact(NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))) == formats.exact(NOON)
    assert formats.exact(NOON.replace(microsecond=999_999)) == "2026-01-02 12:00:00.999 UTC"


def test_time_in_a_zone_is_what_its_clock_shows() -> None:
    assert formats.in_zone(NOON, "Asia/Kathmandu") == "Fri 2026-01-02 17:45"
    first, second = (datetime(2026, 10, 25, hour, 30, tzinfo=UTC) for hour in (0, 1))
    assert formats.in_zone(first, "Europe/Berlin") == formats.in_zone(second, "Europe/Berlin") == "Sun 2026-10-25 02:30"


@pytest.mark.parametrize(
    ("status", "finished_at", "seconds"),
    [
        (Status.COMPLETED, NOON + timedelta(seconds=2), 2),
        (Status.FAILED, NOON, 0),
        (Status.COMPLETED, NOON - timedelta(seconds=1), 0),
        (Status.CANCELLED, NOON + timedelta(seconds=9), None),
        (Status.RETRYING, None, None),
        (Status.PENDING, None, None),
    ],
)
def test_attempt_took_the_time_to_its_end(status: Status, finished_at: datetime | None, seconds: float | None) -> None:
    assert formats.took(Job(status=status, started_at=NOON, finished_at=finished_at)) == seconds


def test_running_attempt_takes_until_now_and_one_that_never_started_took_no_time() -> None:
    started_at = current_time() - timedelta(seconds=30)
    took = formats.took(Job(status=Status.PROCESSING, started_at=started_at))
    assert took is not None
    assert took >= 30
    assert formats.took(Job(status=Status.PROCESSING, started_at=current_time() + timedelta(hours=1))) == 0
    assert formats.took(Job(status=Status.FAILED, started_at=None, finished_at=NOON)) is None


def test_total_of_counts_is_complete_only_if_all_are() -> None:
    counts = dict.fromkeys(Status, Counted(7, is_complete=True)) | {Status.FAILED: Counted(10_000, is_complete=False)}
    assert str(formats.total(counts, ("PENDING", "SCHEDULED"))) == "14"
    assert str(formats.total(counts, ("PENDING", "FAILED"))) == "10,007+"
    assert str(formats.total(counts, ())) == "0"


def test_number_has_separators() -> None:
    assert [formats.number(value) for value in (0, 999, 1000, 1_234_567)] == ["0", "999", "1,000", "1,234,567"]


ODD = "é\u2028\u2029\x85\x7f<b>\u202e\U0001f600"


def test_json_is_indented_and_readable() -> None:
    assert formats.pretty({"a": [1, None], "é": {}}) == '{\n  "a": [\n    1,\n    null\n  ],\n  "é": {}\n}'
    assert formats.pretty(None) == "null"
    assert json.loads(formats.pretty({ODD: ODD})) == {ODD: ODD}
    assert json.loads(formats.pretty("\ud800")) == "\ud800"


def test_long_text_is_cut_and_its_length_is_shown() -> None:
    text = "é" * 65_536
    assert formats.cut(text) == f"{'é' * formats.MAX_TEXT}… (65,536 characters)"
    assert formats.cut("ab", 2) == "ab"
    assert formats.cut("abc", 2) == "ab… (3 characters)"
    assert formats.cut("") == ""
    assert len(formats.pretty([text])) < formats.MAX_TEXT + 50


def test_first_line_ends_at_a_line_feed_alone() -> None:
    assert formats.first_line("one\ntwo\nthree") == "one"
    assert formats.first_line("\ntwo") == ""
    assert formats.first_line(f"{ODD}\nnext") == ODD
    assert re.fullmatch(r"x{160}… \(1,000 characters\)", formats.first_line(f"{'x' * 1000}\n{'y' * 9}"))


def test_filters_have_names_of_their_own() -> None:
    names = [one.__name__.removeprefix("format_") for one in formats.FILTERS]
    assert len(set(names)) == len(names)
    assert "duration" in names
