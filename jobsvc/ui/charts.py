"""Charts as numbers for SVG: stacked bars and lines over time."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 600, 80
"""Size of a chart in its own units; the browser scales it."""


class Bar(NamedTuple):
    """A rectangle of a chart; `name`: its series."""

    name: str
    x: float
    y: float
    width: float
    height: float


class Chart(NamedTuple):
    """The shapes of a chart, and the highest value: of a stack of bars, or of a line. None: there are no values."""

    bars: Sequence[Bar] = ()
    paths: Mapping[str, str] = {}
    highest: float | None = None


def stack(series: Mapping[str, Sequence[int]]) -> Chart:
    """Return a chart of stacked bars, the first series at the bottom. All have the same length."""
    columns = list(zip(*series.values(), strict=True))
    highest = max(map(sum, columns), default=0)
    step = WIDTH / max(len(columns), 1)
    bars = []
    for at, column in enumerate(columns):
        y = float(HEIGHT)
        for name, value in zip(series, column, strict=True):
            if value:
                height = max(value / highest * HEIGHT, 1.0)  # a single job among thousands is still seen
                y -= height
                bars.append(Bar(name, round(at * step, 1), round(y, 1), round(step * 0.8, 1), round(height, 1)))
    return Chart(bars, highest=highest or None)


def draw(series: Mapping[str, Sequence[float | None]]) -> Chart:
    """Return a chart with a line for each series, interrupted where it has no value."""
    highest = max((value for values in series.values() for value in values if value is not None), default=None)
    return Chart(paths={name: _path(values, highest or 1.0) for name, values in series.items()}, highest=highest)


def _path(values: Sequence[float | None], highest: float) -> str:
    step = WIDTH / max(len(values), 1)
    path, command = "", "M"
    for at, value in enumerate(values):
        if value is not None:
            y = HEIGHT * (1 - 0.95 * value / highest)
            path += f"{command}{at * step:.1f} {y:.1f}h{step * 0.8:.1f}"
        command = "M" if value is None else "L"
    return path
