"""Output of `flask jobs` for a job."""

import io
from contextlib import redirect_stdout

import pytest

from jobsvc.cli import render


@pytest.mark.parametrize(
    ("percent", "shown"),
    [(13.333333333333334, "13%"), (0, "0%"), (0.4, "0%"), (66.7, "67%"), (99.5, "99%"), (99.99, "99%"), (100, "100%")],
)
def test_percentage_is_rounded(percent: float, shown: str) -> None:
    assert render.format_progress({"percent": percent, "message": "step 8 of 60"}) == f"{shown} step 8 of 60"
    assert render.format_progress({"percent": percent, "message": None}) == shown


def test_show_rounds_the_percentage() -> None:
    with redirect_stdout(io.StringIO()) as out:
        render.print_job({"progress": {"percent": 100 / 7.5, "message": "x"}}, [])
    assert out.getvalue().split() == ["progress", "13%", "x"]
