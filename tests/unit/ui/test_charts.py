"""Charts: what is in their paths, and that everything stays inside."""

import re

import pytest

from jobsvc.ui.charts import HEIGHT, WIDTH, Chart, draw, stack

_BAR = re.compile(r"M(\S+) (\S+)h(\S+)v(\S+)h-\S+z")


def bars(path: str) -> list[tuple[float, float, float, float]]:
    """Each bar's left edge, upper edge, width and height."""
    return [tuple(map(float, bar)) for bar in _BAR.findall(path)]  # type: ignore[misc]


@pytest.mark.parametrize("series", [{}, {"done": []}, {"done": [], "failed": []}])
def test_chart_without_steps_has_no_bars(series: dict[str, list[int]]) -> None:
    assert stack(series) == Chart(dict.fromkeys(series, ""), None)


def test_chart_of_zeros_has_no_bars_and_no_highest_value() -> None:
    assert stack({"done": [0, 0], "failed": [0, 0]}) == Chart({"done": "", "failed": ""}, None)


def test_bars_of_a_step_stand_on_each_other() -> None:
    chart = stack({"done": [0, 30], "failed": [0, 10]})
    [done], [failed] = bars(chart.paths["done"]), bars(chart.paths["failed"])
    assert chart.highest == 40
    assert done[0] == failed[0] == WIDTH / 2
    assert done[1] + done[3] == HEIGHT
    assert failed[1] + failed[3] == done[1]
    assert done[3] > failed[3]
    assert failed[1] == 0


def test_one_step_fills_the_chart() -> None:
    [bar] = bars(stack({"done": [5]}).paths["done"])
    assert bar == (0, 0, WIDTH * 0.8, HEIGHT)


@pytest.mark.parametrize("order", [("done", "failed"), ("failed", "done")])
def test_one_job_among_millions_is_seen_inside_the_chart(order: tuple[str, str]) -> None:
    counts = {"done": [5_000_000, 7], "failed": [1, 1]}
    paths = stack({name: counts[name] for name in order}).paths
    assert [height >= 1 for _, _, _, height in bars(paths["failed"])] == [True, True]
    assert all(y >= 0 and y + height <= HEIGHT for path in paths.values() for _, y, _, height in bars(path))


def test_steps_of_all_series_must_be_the_same() -> None:
    with pytest.raises(ValueError, match="shorter"):
        stack({"done": [1, 2], "failed": [1]})


@pytest.mark.parametrize("values", [[], [None], [None, None]])
def test_line_without_values_is_empty(values: list[float | None]) -> None:
    assert draw({"p50": values}) == Chart({"p50": ""}, None)


def test_line_is_interrupted_by_steps_without_a_value() -> None:
    path = draw({"p50": [1.0, 2.0, None, 4.0, None]}).paths["p50"]
    assert re.sub(r"[-0-9. ]+", "", path) == "MhLhMh"
    assert [float(x) for x in re.findall(r"[ML](\S+) ", path)] == [0, WIDTH / 5, 3 * WIDTH / 5]


def test_lines_share_the_scale_and_stay_inside() -> None:
    chart = draw({"p50": [0.001, 0.0], "p95": [0.004, None]})
    heights = {name: [float(y) for y in re.findall(r"[ML]\S+ ([-0-9.]+)h", path)] for name, path in chart.paths.items()}
    assert chart.highest == 0.004
    assert heights == {"p50": [HEIGHT * (1 - 0.95 / 4), HEIGHT], "p95": [HEIGHT * 0.05]}


def test_line_of_zeros_lies_on_the_ground() -> None:
    chart = draw({"p50": [0.0]})
    assert (chart.paths["p50"], chart.highest) == (f"M0.0 {HEIGHT:.1f}h{WIDTH * 0.8:.1f}", 0.0)
