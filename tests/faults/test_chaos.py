"""A short run of `make chaos`."""

import subprocess

import pytest

from tests.support.launcher import ROOT


@pytest.mark.slow
def test_short_chaos_run_keeps_every_promise() -> None:
    run = subprocess.run(["make", "-s", "chaos", "JOBS=500"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "lost 0" in run.stdout
