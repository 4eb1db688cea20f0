"""Durations in words."""

import pytest

from jobsvc.durations import format_age, format_duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "—"),
        (-5, "0 ms"),
        (0, "0 ms"),
        (0.0004, "0 ms"),
        (0.0123, "12 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (1, "1 s"),
        (1.04, "1 s"),
        (1.25, "1.2 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (10.4, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h"),
        (3660, "1 h 1 min"),
        (3661, "1 h 1 min"),
        (7205, "2 h"),
        (86399, "23 h 59 min"),
        (86400, "1 d"),
        (86400 + 59 * 60, "1 d"),
        (90000, "1 d 1 h"),
        (400 * 86400, "400 d"),
    ],
)
def test_duration_has_its_two_largest_units(seconds: float | None, words: str) -> None:
    assert format_duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0 s"),
        (0, "0 s"),
        (0.9, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599.9, "59 min"),
        (3600, "1 h"),
        (86399, "23 h"),
        (86400, "1 d"),
        (1e9, "11574 d"),
    ],
)
def test_age_has_its_largest_unit(seconds: float, words: str) -> None:
    assert format_age(seconds) == words
