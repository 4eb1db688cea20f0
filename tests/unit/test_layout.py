"""Files have the sizes and the form that a reader can rely on."""

import re
from pathlib import Path

import pytest

from tests.support.servers import ROOT

MAX_MODULE_LINES = 250

MAX_RECORD_LINES = 60
MAX_README_LINES = 120
MAX_README_WORDS = 900
MAX_LINE = 120

HEADINGS = ["Context", "Decision", "Consequences", "Alternatives", "Measurements"]
"""The headings of a decision record, in order; one without figures leaves out the last."""

MODULES = sorted(ROOT.glob("jobsvc/**/*.py"))
RECORDS = sorted(ROOT.glob("docs/decisions/[0-9]*.md"))
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


def test_long_line_is_found() -> None:
    assert long_lines(f"{'word ' * 30}\n```\n{'code ' * 30}\n```\n| {'cell ' * 30} |\n") == ["word " * 30]
