"""Cron expressions in words."""

import re
from itertools import product
from typing import NamedTuple

_NICKNAMES = {
    "@hourly": "every hour",
    "@daily": "every day at 00:00",
    "@midnight": "every day at 00:00",
    "@weekly": "at 00:00 on Sunday",
    "@monthly": "at 00:00 on day 1 of the month",
    "@yearly": "at 00:00 on day 1 of the month in January",
    "@annually": "at 00:00 on day 1 of the month in January",
}
_ORDINALS = {1: "st", 2: "nd", 3: "rd"}

MOST_TIMES = 6
"""Maximum number of times of a day that are listed one by one."""


class _Field(NamedTuple):
    """A field of an expression. `noun`: before a number; `names` of its values, by number."""

    unit: str
    noun: str = ""
    names: tuple[str, ...] = ()


_MINUTE, _HOUR, _DAY = _Field("minute", "minute "), _Field("hour", "hour "), _Field("day", "day ")
_WEEKDAY = _Field(
    "day of the week",
    names=("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
)
_MONTH = _Field(
    "month",
    names=("", "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December"),
)  # fmt: skip


def describe_cron(expression: str) -> str:
    """Return a valid cron expression in words, such as `at 08:00 on Monday to Friday`."""
    if nickname := _NICKNAMES.get(expression.lower()):
        return nickname
    minute, hour, day, month, weekday = re.sub(r"\*/1\b", "*", expression.lower()).split()
    days = [f"on {_values(day, _DAY)} of the month"] if day != "*" else []
    days += [f"on {_values(weekday, _WEEKDAY)}"] if weekday != "*" else []
    # crontab(5): either of the two days, unless one of the fields starts with a star.
    join = " and " if "*" in (day[0], weekday[0]) else " or "
    when = _time(minute, hour)
    parts = ["every day" if ":" in when and not days else "", when, join.join(days)]
    parts.append(f"in {_values(month, _MONTH)}" if month != "*" else "")
    return " ".join(part for part in parts if part)


def _time(minute: str, hour: str) -> str:
    minutes, hours = minute.split(","), hour.split(",")
    if all(one.isdecimal() for one in (*minutes, *hours)) and len(minutes) * len(hours) <= MOST_TIMES:
        return "at " + _join([f"{int(one):02}:{int(other):02}" for one, other in product(hours, minutes)])
    of = "" if hour == "*" else f" of {_values(hour, _HOUR)}"
    if minute == "*":
        return f"every minute{of}"
    if re.fullmatch(r"\*/[0-9]+", minute):
        return f"every {int(minute[2:])} minutes{of}"
    if minute.isdecimal() and int(minute) == 0 and not of:
        return "every hour"
    return f"at {_values(minute, _MINUTE)}{of or ' of every hour'}"


def _values(text: str, field: _Field) -> str:
    words = _join(list(dict.fromkeys(_value(part, field) for part in text.split(","))))
    return words if words.startswith("every") else field.noun + words


def _value(part: str, field: _Field) -> str:
    span, _, step = part.partition("/")
    low, _, high = span.partition("-")
    limits = [] if low == "*" else [_name(value, field) for value in (low, high) if value]
    if not step and limits:
        return " to ".join(limits)
    every = f"every {_ordinal(int(step))} {field.unit}" if step not in ("", "1") else f"every {field.unit}"
    return f"{every} from {' to '.join(limits)}" if limits else every


def _name(value: str, field: _Field) -> str:
    if value.isdecimal():
        return field.names[int(value)] if field.names else str(int(value))
    return next(name for name in field.names if name.lower().startswith(value))


def _ordinal(number: int) -> str:
    ending = "th" if number in (11, 12, 13) else _ORDINALS.get(number % 10, "th")
    return f"{number}{ending}"


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
