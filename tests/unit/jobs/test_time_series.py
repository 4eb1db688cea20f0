"""Percentiles of histograms, as Prometheus' histogram_quantile interpolates them."""

from itertools import accumulate

import pytest

from jobsvc.jobs import BOUNDS
from jobsvc.jobs.time_series import percentile


def cumulative(**counts: int) -> list[int]:
    """Counts by bucket, b0 for the first; the others are 0."""
    return list(accumulate(counts.get(f"b{number}", 0) for number in range(len(BOUNDS))))


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ({"b0": 1}, 0.5, 0.0025),  # the first bucket begins at 0
        ({"b7": 4}, 0.5, 0.75),  # 0.5 to 1
        ({"b7": 100}, 0.95, 0.975),
        ({"b0": 1, "b7": 1}, 0.5, 0.005),  # at the end of the first bucket, not in an empty one
        ({"b0": 1, "b7": 3}, 0.5, 0.5 + 0.5 / 3),
        ({"b16": 5}, 0.5, 3600),  # the last finite bound
        ({"b15": 1, "b16": 1}, 0.95, 3600),
        ({"b0": 10**9, "b16": 1}, 0.95, 0.005 * 0.95),
    ],
)
def test_percentile_is_interpolated_in_its_bucket(counts: dict[str, int], share: float, expected: float) -> None:
    assert percentile(cumulative(**counts), share) == pytest.approx(expected)
