"""Cron expressions in words."""

from itertools import product

_NICKNAMES = {
    "@hourly": "every hour",
    "@daily": "every day at 00:00",
    "@midnight": "every day at 00:00",
    "@weekly": "at 00:00 on Sunday",
    "@monthly": "at 00:00 on day 1 of the month",
    "@yearly": "at 00:00 on day 1 of the month in January",
    "@annually": "at 00:00 on day 1 of the month in January",
}
_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("", "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip

MOST_TIMES = 6
"""Maximum number of times of a day that are listed one by one."""


def describe_cron(expression: str) -> str:
    """Return a valid cron expression in words, such as `at 08:00 on Monday to Friday`."""
    if nickname := _NICKNAMES.get(expression.lower()):
        return nickname
    minute, hour, day, month, weekday = expression.lower().split()
    days = [f"on day {_values(day)} of the month"] if day != "*" else []
    days += [f"on {_values(weekday, _DAYS)}"] if weekday != "*" else []
    # crontab(5): either of the two days, unless one of the fields starts with a star.
    join = " and " if "*" in (day[0], weekday[0]) else " or "
    when = _time(minute, hour)
    parts = ["every day" if when.startswith("at ") and not days else "", when, join.join(days)]
    parts.append(f"in {_values(month, _MONTHS)}" if month != "*" else "")
    return " ".join(part for part in parts if part)


def _time(minute: str, hour: str) -> str:
    minutes, hours = minute.split(","), hour.split(",")
    if all(one.isdecimal() for one in (*minutes, *hours)) and len(minutes) * len(hours) <= MOST_TIMES:
        return "at " + _join([f"{int(one):02}:{int(other):02}" for one, other in product(hours, minutes)])
    of = (
        ""
        if hour == "*"
        else f" of hour {_values(hour)}"
        if not hour.startswith("*/")
        else f" of every {hour[2:]} hours"
    )
    if minute == "*":
        return f"every minute{of}"
    if minute.startswith("*/"):
        return f"every {minute[2:]} minutes{of}"
    if minute == "0" and not of:
        return "every hour"
    return f"at minute {_values(minute)}{of or ' of every hour'}"


def _values(field: str, names: tuple[str, ...] = ()) -> str:
    return _join([_value(part, names) for part in field.split(",")])


def _value(part: str, names: tuple[str, ...]) -> str:
    span, _, step = part.partition("/")
    low, _, high = span.partition("-")
    text = "every" if low == "*" else f"{_name(low, names)} to {_name(high, names)}" if high else _name(low, names)
    if not step:
        return text
    return f"every {step}" if low == "*" else f"every {step} from {text}"


def _name(value: str, names: tuple[str, ...]) -> str:
    if not names:
        return value
    if value.isdecimal():
        return names[int(value)]
    return next(name for name in names if name.lower().startswith(value))


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
