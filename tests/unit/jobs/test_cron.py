"""Cron expressions, and their ticks over changes of the clock."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from jobsvc.jobs import cron


def ticks(expression: str, timezone: str, start: str, end: str) -> list[str]:
    """The ticks after `start`, up to `end` (both local), as they show on a clock there."""
    zone = ZoneInfo(timezone)
    moment, last = (datetime.fromisoformat(text).replace(tzinfo=zone) for text in (start, end))
    shown = []
    while (moment := cron.next_tick(expression, timezone, moment)) <= last:
        shown.append(moment.astimezone(zone).strftime("%H:%M%z"))
    return shown


SPRING = {
    # 02:00 +01:00 becomes 03:00 +02:00
    "Europe/Berlin": ("2026-03-29T00:59", "2026-03-29T04:00"),
    # 02:00 -05:00 becomes 03:00 -04:00
    "America/New_York": ("2026-03-08T00:59", "2026-03-08T04:00"),
    # 02:00 +10:30 becomes 02:30 +11:00
    "Australia/Lord_Howe": ("2026-10-04T00:59", "2026-10-04T04:00"),
    "UTC": ("2026-03-29T00:59", "2026-03-29T04:00"),
}


@pytest.mark.parametrize(
    ("timezone", "expression", "shown"),
    [
        ("Europe/Berlin", "30 2 * * *", "03:00+0200"),
        ("Europe/Berlin", "0 2 * * *", "03:00+0200"),
        ("Europe/Berlin", "*/15 2 * * *", "03:00+0200"),
        ("Europe/Berlin", "30 2,3 * * *", "03:00+0200 03:30+0200"),
        ("Europe/Berlin", "0 2-4 * * *", "03:00+0200 04:00+0200"),
        ("Europe/Berlin", "30 1 * * *", "01:30+0100"),
        ("Europe/Berlin", "0 3 * * *", "03:00+0200"),
        ("Europe/Berlin", "0 */2 * * *", "03:00+0200 04:00+0200"),
        ("Europe/Berlin", "@hourly", "01:00+0100 03:00+0200 04:00+0200"),
        ("Europe/Berlin", "30 * * * *", "01:30+0100 03:30+0200"),
        (
            "Europe/Berlin",
            "*/20 * * * *",
            "01:00+0100 01:20+0100 01:40+0100 03:00+0200 03:20+0200 03:40+0200 04:00+0200",
        ),
        ("America/New_York", "30 2 * * *", "03:00-0400"),
        ("America/New_York", "30 * * * *", "01:30-0500 03:30-0400"),
        ("America/New_York", "0 0-23 * * *", "01:00-0500 03:00-0400 04:00-0400"),
        ("Australia/Lord_Howe", "15 2 * * *", "02:30+1100"),
        ("Australia/Lord_Howe", "15,45 2 * * *", "02:30+1100 02:45+1100"),
        ("Australia/Lord_Howe", "0 * * * *", "01:00+1030 03:00+1100 04:00+1100"),
        ("Australia/Lord_Howe", "*/30 1,2 * * *", "01:00+1030 01:30+1030 02:30+1100"),
        ("Australia/Lord_Howe", "*/30 * * * *", "01:00+1030 01:30+1030 02:30+1100 03:00+1100 03:30+1100 04:00+1100"),
        ("UTC", "30 2 * * *", "02:30+0000"),
        ("UTC", "@hourly", "01:00+0000 02:00+0000 03:00+0000 04:00+0000"),
    ],
)
def test_ticks_around_a_skipped_hour(timezone: str, expression: str, shown: str) -> None:
    assert ticks(expression, timezone, *SPRING[timezone]) == shown.split()


AUTUMN = {
    # 03:00 +02:00 becomes 02:00 +01:00
    "Europe/Berlin": ("2026-10-25T00:59", "2026-10-25T04:00"),
    # 02:00 -04:00 becomes 01:00 -05:00
    "America/New_York": ("2026-11-01T00:59", "2026-11-01T03:00"),
    # 02:00 +11:00 becomes 01:30 +10:30
    "Australia/Lord_Howe": ("2026-04-05T00:59", "2026-04-05T03:00"),
    "UTC": ("2026-10-25T00:59", "2026-10-25T04:00"),
}


@pytest.mark.parametrize(
    ("timezone", "expression", "shown"),
    [
        ("Europe/Berlin", "30 2 * * *", "02:30+0200"),
        ("Europe/Berlin", "0 2,3 * * *", "02:00+0200 03:00+0100"),
        ("Europe/Berlin", "*/30 2 * * *", "02:00+0200 02:30+0200"),
        ("Europe/Berlin", "0 */2 * * *", "02:00+0200 04:00+0100"),
        ("Europe/Berlin", "@hourly", "01:00+0200 02:00+0200 02:00+0100 03:00+0100 04:00+0100"),
        (
            "Europe/Berlin",
            "*/30 * * * *",
            "01:00+0200 01:30+0200 02:00+0200 02:30+0200 02:00+0100 02:30+0100 03:00+0100 03:30+0100 04:00+0100",
        ),
        ("America/New_York", "30 1 * * *", "01:30-0400"),
        ("America/New_York", "30 2 * * *", "02:30-0500"),
        ("America/New_York", "30 * * * *", "01:30-0400 01:30-0500 02:30-0500"),
        ("Australia/Lord_Howe", "45 1 * * *", "01:45+1100"),
        ("Australia/Lord_Howe", "45 * * * *", "01:45+1100 01:45+1030 02:45+1030"),
        (
            "Australia/Lord_Howe",
            "*/20 * * * *",
            "01:00+1100 01:20+1100 01:40+1100 01:40+1030 02:00+1030 02:20+1030 02:40+1030 03:00+1030",
        ),
        ("UTC", "30 2 * * *", "02:30+0000"),
    ],
)
def test_ticks_around_a_repeated_hour(timezone: str, expression: str, shown: str) -> None:
    assert ticks(expression, timezone, *AUTUMN[timezone]) == shown.split()


ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "America/Havana", "Asia/Tokyo"]


def changes(zone: ZoneInfo) -> list[datetime]:
    """Midday before each change of the clock in 2026."""
    noons = [datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=day) for day in range(365)]
    return [
        day
        for day, next_day in pairwise(noons)
        if day.astimezone(zone).utcoffset() != next_day.astimezone(zone).utcoffset()
    ]


@pytest.mark.parametrize("timezone", ZONES)
@pytest.mark.parametrize("step", [7, 13, 30])
def test_interval_schedule_ticks_whenever_the_local_clock_matches(timezone: str, step: int) -> None:
    zone = ZoneInfo(timezone)
    for moment in changes(zone):
        minutes = [moment + timedelta(minutes=minute) for minute in range(1, 25 * 60)]
        expected = [minute for minute in minutes if minute.astimezone(zone).minute % step == 0]
        found = []
        while (moment := cron.next_tick(f"*/{step} * * * *", timezone, moment)) <= minutes[-1]:
            found.append(moment)
        assert found == expected


@pytest.mark.parametrize("timezone", ZONES)
def test_fixed_time_ticks_once_a_day(timezone: str) -> None:
    zone = ZoneInfo(timezone)
    for hour in (0, 1, 2, 3, 23):
        moment, days = datetime(2026, 3, 1, 12, tzinfo=zone), []
        for _ in range(260):
            moment = cron.next_tick(f"30 {hour} * * *", timezone, moment)
            # A tick at the jump is shown up to an hour late, which may be on the next day.
            days.append((moment.astimezone(zone) - timedelta(hours=hour)).date())
        assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(days)), hour


def test_tick_is_later_than_the_given_moment() -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert cron.next_tick("0 12 * * *", "UTC", noon - timedelta(microseconds=1)) == noon
    assert cron.next_tick("0 12 * * *", "UTC", noon) == noon + timedelta(days=1)
    assert cron.next_tick("0 12 * * *", "UTC", noon + timedelta(seconds=59.5)) == noon + timedelta(days=1)


@pytest.mark.parametrize(
    ("expression", "days"),
    [
        ("0 0 1,15 * 1", "01 05 12 15 19 26"),  # either day
        ("0 0 */10 * 4", "01"),  # a star in one: both
        ("0 0 * * 7", "04 11 18 25"),
        ("0 0 * JAN MON-WED", "05 06 07 12 13 14 19 20 21 26 27 28"),
        ("0 0 1-10/3 1-6 *", "01 04 07 10"),
        ("0 0 31 * *", "31"),
        ("@weekly", "04 11 18 25"),
        ("@Monthly", "01"),
        ("@yearly", "01"),
        ("@annually", "01"),
    ],
)
def test_days_are_matched(expression: str, days: str) -> None:
    cron.check(expression)
    moment, found = datetime(2025, 12, 31, 23, 59, tzinfo=UTC), []
    while (moment := cron.next_tick(expression, "UTC", moment)) < datetime(2026, 2, 1, tzinfo=UTC):
        found.append(moment.strftime("%d"))
    assert found == days.split()


def test_leap_day_ticks_after_a_century_without_one() -> None:
    cron.check("0 0 29 2 *")
    assert cron.next_tick("0 0 29 2 *", "UTC", datetime(2096, 3, 1, tzinfo=UTC)) == datetime(2104, 2, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    "expression",
    ["*/5 * * * *", "5/10 0-23/2 * * *", "0\t2  * * *", "@midnight", "0 0 * * 0-7", "*/60 */24 */31 */12 */7"],
)
def test_valid_expressions_are_accepted(expression: str) -> None:
    cron.check(expression)


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        *(
            (text, "five fields")
            for text in ("", " ", "* * * *", "* * * * * *", "0 0 1 1 * * 2030", "@reboot", "@every 5m")
        ),
        *((text, "five fields") for text in ("H * * * *", "R R * * *", "0 0 L * *", "0 0 15W * *", "0 0 ? * 1")),
        *(
            (text, "five fields")
            for text in ("0 0 * * 1#2", "-1 * * * *", "1,,2 * * * *", "*/0 * * * *", "1.5 * * * *")
        ),
        *(
            (text, "five fields")
            for text in ("0\n0 * * *", "0 0 * * *\n", "0\u00a00 * * *", "\u0663 * * * *", "*/100 * * * *")
        ),
        *((text, "can't have") for text in ("60 * * * *", "* 24 * * *", "0 0 0 * *", "0 0 * 13 *", "0 0 * * 8")),
        *((text, "can't have") for text in ("0 0 * * JAN", "0 0 * MON *", "0 0 * foo *", "0 0 32 * *", "0-99 * * * *")),
        *(
            (text, "go up")
            for text in ("5-5 * * * *", "07-7 * * * *", "0 22-2 * * *", "0 0 * * 7-0", "0 0 * * SAT-SUN")
        ),
        *((text, "a step of") for text in ("*/90 * * * *", "*/61 * * * *", "0 */25 * * *", "0 0-5/25 * * *")),
        *((text, "a step of") for text in ("0 0 */32 * *", "0 0 * */13 *", "0 0 * * */8", "0 0 * * 1,*/9")),
        *((text, "never") for text in ("0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30,31 FEB *", "0 0 31 2 */2")),
    ],
)
def test_invalid_expressions_are_refused(expression: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        cron.check(expression)


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "Etc/GMT+5", "America/Argentina/Buenos_Aires"])
def test_known_time_zones_are_accepted(name: str) -> None:
    cron.check_timezone(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "Nowhere/Land", "europe/berlin", "America", "localtime", "posixrules", "CEST5", "UTC\n", "zone.tab"),
        *("../../etc/passwd", "/etc/passwd", "Europe/../Europe/Berlin", "./UTC", "right/UTC", "x" * 10_000),
    ],
)
def test_unknown_time_zones_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="there is no time zone"):
        cron.check_timezone(name)
