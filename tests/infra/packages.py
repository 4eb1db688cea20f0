"""WSGI servers that are no dependency of jobsvc, installed into a folder of the test's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

INSTALL_SECONDS = 240
"""uWSGI is compiled."""


def install(package: str, folder: Path) -> dict[str, str]:
    """Install a package with its program; returns the environment that finds both. Skips what can't be had."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(folder)]
    try:
        done = subprocess.run([*command, package], capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{package} could not be installed within {INSTALL_SECONDS} s")
    if done.returncode:
        pytest.skip(f"{package} could not be installed: {done.stderr.strip().splitlines()[-1]}")
    return {"PYTHONPATH": str(folder), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
