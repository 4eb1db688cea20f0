"""Durations in words, for the commands and the console."""

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def format_duration(seconds: float | None) -> str:
    """Return a duration in its two largest units, such as `2 h 5 min`; a dash for None."""
    if seconds is None:
        return "—"
    if seconds < 0.9995:
        return f"{max(round(seconds * 1000), 0)} ms"
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    rest, parts = round(seconds), []
    largest = next(at for at, (_, size) in enumerate(_UNITS) if rest >= size)
    for unit, size in _UNITS[largest : largest + 2]:
        number, rest = divmod(rest, size)
        parts += [f"{number} {unit}"] if number else []
    return " ".join(parts)


def format_age(seconds: float) -> str:
    """Return a duration in its largest unit, such as `3 min`."""
    unit, size = next((one for one in _UNITS if seconds >= one[1]), _UNITS[-1])
    return f"{max(seconds, 0) // size:.0f} {unit}"
