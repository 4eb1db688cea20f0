"""Charts over time as paths for SVG: stacked bars and lines."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 600, 80
"""Size of a chart in its own units; the browser scales it."""


class Chart(NamedTuple):
    """A path for each series, and the highest value: of a stack of bars, or of a line. None: there are no values."""

    paths: Mapping[str, str]
    highest: float | None


def stack(series: Mapping[str, Sequence[int]]) -> Chart:
    """Return a chart of stacked bars, the first series at the bottom. All have the same length."""
    columns = list(zip(*series.values(), strict=True))
    highest = max(map(sum, columns), default=0)
    step, paths = WIDTH / max(len(columns), 1), dict.fromkeys(series, "")
    for at, column in enumerate(columns):
        y = float(HEIGHT)
        for name, value in zip(series, column, strict=True):
            height = 1 + value / highest * (HEIGHT - len(series)) if value else 0  # one among thousands is still seen
            y -= height
            paths[name] += f"M{at * step:.1f} {y:.1f}h{step * 0.8:.1f}v{height:.1f}h-{step * 0.8:.1f}z" if value else ""
    return Chart(paths, highest or None)


def draw(series: Mapping[str, Sequence[float | None]]) -> Chart:
    """Return a chart with a line for each series, interrupted where it has no value."""
    highest = max((value for values in series.values() for value in values if value is not None), default=None)
    return Chart({name: _line(values, highest or 1.0) for name, values in series.items()}, highest)


def _line(values: Sequence[float | None], highest: float) -> str:
    step = WIDTH / max(len(values), 1)
    path, command = "", "M"
    for at, value in enumerate(values):
        if value is not None:
            path += f"{command}{at * step:.1f} {HEIGHT * (1 - 0.95 * value / highest):.1f}h{step * 0.8:.1f}"
        command = "M" if value is None else "L"
    return path
