"""Files have the sizes and the form that a reader can rely on."""

import gzip
import re
from pathlib import Path

import pytest

from tests.support.launcher import ROOT

MAX_MODULE_LINES = 250

MAX_RECORD_LINES = 60
MAX_README_LINES = 120
MAX_README_WORDS = 900
MAX_LINE = 120

MAX_CONSOLE_LINES = 1500
MAX_FIRST_VISIT_BYTES = 40_000
"""Maximum size of the console's files that a browser loads once, compressed."""

HEADINGS = ["Context", "Decision", "Consequences", "Alternatives", "Measurements"]
"""The headings of a decision record, in order; one without figures leaves out the last."""

MODULES = sorted(ROOT.glob("jobsvc/**/*.py"))
RECORDS = sorted(ROOT.glob("docs/decisions/[0-9]*.md"))
CONSOLE = [
    *ROOT.glob("jobsvc/ui/**/*.py"),
    *ROOT.glob("jobsvc/ui/**/*.html"),
    *ROOT.glob("jobsvc/ui/**/*.css"),
    *ROOT.glob("jobsvc/ui/**/*.js"),
]
FIRST_VISIT = ("console.css", "console.js", "htmx.min.js", "icon.svg")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

_CODE_BLOCK = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"https?://\S+|\]\([^)]*\)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def long_lines(text: str) -> list[str]:
    """Return the lines of Markdown that are too long, without those of code blocks and tables, and without links."""
    prose = _CODE_BLOCK.sub("", text).splitlines()
    return [line for line in prose if not line.lstrip().startswith("|") and len(_LINK.sub("", line)) > MAX_LINE]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_module_is_short(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= MAX_MODULE_LINES


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_document_is_wrapped(path: Path) -> None:
    assert long_lines(path.read_text()) == []


@pytest.mark.parametrize("path", RECORDS, ids=name)
def test_record_is_short_and_has_all_headings(path: Path) -> None:
    text = path.read_text()
    lines = text.count("\n")
    assert lines <= MAX_RECORD_LINES
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings in (HEADINGS, HEADINGS[:-1])


def test_readme_is_one_page() -> None:
    text = (ROOT / "README.md").read_text()
    lines, words = text.count("\n"), len(text.split())
    assert lines <= MAX_README_LINES
    assert words <= MAX_README_WORDS


def test_console_is_small() -> None:
    own = [path for path in CONSOLE if path.name != "htmx.min.js"]
    assert {path.suffix for path in own} == {".py", ".html", ".css", ".js"}
    lines = sum(path.read_text().count("\n") for path in own)
    assert lines <= MAX_CONSOLE_LINES


def test_first_visit_of_the_console_loads_little() -> None:
    static = ROOT / "jobsvc/ui/static"
    size = sum(len(gzip.compress((static / name).read_bytes())) for name in FIRST_VISIT)
    assert size <= MAX_FIRST_VISIT_BYTES


def test_long_line_is_found() -> None:
    assert long_lines(f"{'word ' * 30}\n```\n{'code ' * 30}\n```\n| {'cell ' * 30} |\n") == ["word " * 30]
