"""Cron expressions: validation, and their ticks in a time zone, with its daylight saving changes.

croniter computes ticks in local time without a zone; clock changes are handled here, as decided in
docs/decisions/0008-schedules.md.
"""

import re
from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from croniter import croniter
from croniter.croniter import DOW_ALPHAS, M_ALPHAS, CroniterBadDateError

NICKNAMES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")

_NAMES: dict[str, int] = {**M_ALPHAS, **DOW_ALPHAS}
_VALUE = r"(?:[0-9]{1,2}|[a-z]{3})"
_ITEM = rf"(?:\*|{_VALUE}(?:-{_VALUE})?)(?:/[1-9][0-9]?)?"
_FIELD = rf"{_ITEM}(?:,{_ITEM})*"
_EXPRESSION = re.compile(rf"{_FIELD}(?:[ \t]+{_FIELD}){{4}}")
_RANGE = re.compile(rf"({_VALUE})-({_VALUE})")
_SIZES = {"minutes": 60, "hours": 24, "days of the month": 31, "months": 12, "days of the week": 7}
"""The fields in order, with the number of values of each."""

_HOUR = 1
_ANY_DAY = datetime(2000, 1, 1)  # local time, in any zone


def check(expression: str) -> None:
    """Raise ValueError with the reason if the cron expression is not supported or never ticks."""
    lowered = expression.lower()
    if lowered not in NICKNAMES and not _EXPRESSION.fullmatch(lowered):
        raise ValueError(
            "must have five fields (minute, hour, day of month, month, day of week) of numbers, names like MON or JAN, "
            f"*, ranges, steps and lists; or be one of {', '.join(NICKNAMES)}"
        )
    try:
        _calendar(expression, _ANY_DAY).get_next()
    except CroniterBadDateError:
        raise ValueError("never ticks: there is no such date") from None
    except ValueError:
        raise ValueError("has a value that its field can't have") from None
    if lowered not in NICKNAMES:
        _check_steps(lowered)
    for low, high in _RANGE.findall(lowered):
        # croniter reads 5-5 as every value, and 5-3 as a range that wraps around.
        if _number(low) >= _number(high):
            raise ValueError(f"has a range that doesn't go up: {low}-{high}")


def _check_steps(expression: str) -> None:
    """Raise ValueError for a step larger than its field: */90 in the minutes would tick each hour, at 0."""
    for field, (name, size) in zip(expression.split(), _SIZES.items(), strict=True):
        for step in re.findall("/([0-9]+)", field):
            if int(step) > size:
                raise ValueError(f"has a step of {step} in the {name}, of which there are {size}")


def _number(value: str) -> int:
    return int(value) if value.isdecimal() else _NAMES[value]


def check_timezone(name: str) -> None:
    """Raise ValueError if there is no such time zone."""
    if name not in _timezones():
        raise ValueError(f"there is no time zone {name[:100]!a}; they have names like Europe/Berlin, and UTC")


@lru_cache(maxsize=1)
def _timezones() -> frozenset[str]:
    # `localtime` depends on the machine.
    return frozenset(available_timezones() - {"localtime"})


def next_tick(expression: str, timezone: str, after: datetime) -> datetime:
    """Return the first tick after a moment, in UTC.

    An expression with every hour ticks whenever the clock shows one of its times. Any other ticks once
    for each of its times: at the jump for a time that the clock skips, and the first time for one that
    the clock repeats.
    """
    zone = ZoneInfo(timezone)
    here = after.astimezone(zone)
    # How far the clock will be set back over the time that it shows now; these times come again.
    repeated = _offset(here) - _offset(here.replace(fold=1))
    calendar = _calendar(expression, here.replace(tzinfo=None) - repeated)
    has_every_hour = "*" in calendar.expanded[_HOUR]
    second_time = None
    while True:
        local: datetime = calendar.get_next(datetime)
        # In a skipped hour, fold=0 gives the later moment (PEP 495).
        first, last = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if last < first:
            if has_every_hour:
                continue
            first = _jump(zone, last, first)
        if has_every_hour and first <= after < last:
            second_time = second_time or last
        if first > after:
            return min(first, second_time or first)


def _calendar(expression: str, start: datetime) -> croniter:
    # croniter's "cron bug" is the rule of crontab(5): either day matches only if neither field starts with a star.
    return croniter(expression, start, implement_cron_bug=True)


def _offset(local: datetime) -> timedelta:
    offset = local.utcoffset()
    assert offset is not None
    return offset


def _jump(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Return the moment between these two (in UTC) at which the zone's clock changed."""
    old = _offset(before.astimezone(zone))
    span = range(int((after - before).total_seconds()) + 1)
    changed = bisect_left(
        span, True, key=lambda second: _offset((before + timedelta(seconds=second)).astimezone(zone)) != old
    )
    return before + timedelta(seconds=changed)
