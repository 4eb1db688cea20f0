"""Lines of a log in portions: joined, limited, and which portions newer ones make superfluous."""

import pytest

from jobsvc.jobs.log_lines import MAX_BYTES, MAX_LINES, NO_LINES, Lines, Portions, join


def lines(first: int, last: int, size: int = 0) -> Lines:
    return Lines(last, [{"time": "t", "level": "INFO", "message": f"{n}{'x' * size}"} for n in range(first, last + 1)])


def numbers(some: Lines) -> list[str]:
    return [line["message"] for line in some.lines]


@pytest.mark.parametrize(
    ("portions", "joined"),
    [
        ([], NO_LINES),
        ([NO_LINES], NO_LINES),
        ([lines(1, 3), lines(4, 5)], lines(1, 5)),
        ([lines(4, 5), lines(1, 3)], lines(1, 5)),
        ([lines(1, 3), lines(2, 5)], lines(1, 5)),
        ([lines(1, 5), lines(2, 3)], lines(1, 5)),
        ([lines(1, 3), lines(5, 6)], lines(5, 6)),
        ([lines(1, 3), lines(7, 7), lines(3, 6)], lines(1, 7)),
        ([lines(1, 900), lines(901, 1800)], lines(801, 1800)),
    ],
)
def test_portions_join_without_a_gap(portions: list[Lines], joined: Lines) -> None:
    assert join(portions) == joined


def test_lines_after_a_number_are_returned() -> None:
    assert [numbers(lines(3, 5).after(n)) for n in (0, 2, 3, 5, 9)] == [
        ["3", "4", "5"],
        ["3", "4", "5"],
        ["4", "5"],
        [],
        [],
    ]


def test_number_of_missing_lines_is_returned() -> None:
    assert [line["message"] for line in lines(1, 2).shown()] == ["1", "2"]
    assert [line["message"] for line in lines(3, 4).shown()] == ["2 earlier lines dropped", "3", "4"]
    assert len(lines(1, MAX_LINES).shown()) == MAX_LINES
    assert len(lines(2, MAX_LINES + 1).shown()) == MAX_LINES
    assert NO_LINES.shown() == []


@pytest.mark.parametrize(("count", "size"), [(1, 0), (7, 100), (400, 0), (50, 4000), (3, 16_000)])
def test_superfluous_portions_are_invisible_ones(count: int, size: int) -> None:
    stored = Portions()
    kept: list[Lines] = []
    last = 0
    for number in range(40 if count > 1 else 2500):
        new = lines(last + 1, last + count, size).newest()
        removed = stored.superfluous(new)
        stored.add(new)
        kept = [*(one for one in kept if one.last > removed), new] if removed else [*kept, new]
        last = new.last
        if number < 40 or number % 250 == 0:
            assert join(kept).shown() == lines(max(1, last - 2 * MAX_LINES), last, size).shown()
            assert sum(one.size for one in kept) <= 3 * MAX_BYTES
            assert sum(len(one.lines) for one in kept) < 3 * MAX_LINES
