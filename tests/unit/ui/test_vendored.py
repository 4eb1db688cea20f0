"""The console's script library is the published file of the version in the Makefile, with its licence."""

import hashlib
import re

from tests.support.launcher import ROOT

STATIC = ROOT / "jobsvc" / "ui" / "static"

SHA256 = "a0abb04f2f45a1f89d1d4844023245537e5e6014c87b144553e0607b4cc32130"
"""Of `dist/htmx.min.js` in the package htmx.org 4.0.1 of npm; `make vendor` prints that of another version."""


def test_script_library_is_the_published_file() -> None:
    assert hashlib.sha256((STATIC / "htmx.min.js").read_bytes()).hexdigest() == SHA256


def test_version_of_the_makefile_is_that_of_the_file() -> None:
    wanted = re.findall(r"^HTMX = (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r'\bversion="([^"]+)"', (STATIC / "htmx.min.js").read_text()) == wanted


def test_licence_lies_beside_the_file() -> None:
    licence = (STATIC / "htmx.LICENSE").read_text()
    assert licence.startswith("Zero-Clause BSD")
    assert "for\nany purpose with or without fee is hereby granted" in licence
