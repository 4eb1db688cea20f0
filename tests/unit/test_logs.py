"""Log lines: every record is one line.

What could make another line of it, or change how it is shown: C0 controls (newline, carriage return, escape
sequences), DEL, C1 controls (NEL, CSI), the line and paragraph separators, marks of direction, lone surrogates; in
the message, its arguments, the logger's and the level's name, and the text of an exception. What could make no line
of it: arguments that don't fit, and exceptions without a text. What could make it too long: all of them.
"""

import json
import logging
import sys
from typing import Any

import pytest

from jobsvc.logs import MAX_TEXT, JsonLines, TextLines
from jobsvc.printable import escape_controls, one_line

FORGED = "a\n12:00:00 ERROR   x: forged"
CONTROLS = [
    *map(chr, range(0x20)),
    "\x7f",
    *map(chr, range(0x80, 0xA0)),
    *"\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    "\ud800",
    "\udcff",
]


class Evil(Exception):
    def __str__(self) -> str:
        raise ValueError

    def __getattr__(self, name: str) -> Any:
        return {}[name]


class Unprintable:
    def __str__(self) -> str:
        raise ValueError

    __repr__ = __str__


def record(message: Any, *arguments: Any, error: BaseException | None = None, name: str = "x") -> logging.LogRecord:
    info = None
    if error is not None:
        try:
            raise error
        except BaseException:
            info = sys.exc_info()
    return logging.LogRecord(name, logging.ERROR, "file.py", 1, message, arguments, info)


def text(message: Any, *arguments: Any, **more: Any) -> str:
    return TextLines().format(record(message, *arguments, **more))


def parsed(message: Any, *arguments: Any, **more: Any) -> dict[str, Any]:
    line = JsonLines().format(record(message, *arguments, **more))
    assert line.isascii()
    assert line.isprintable()
    return dict(json.loads(line))


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_control_characters_are_escaped(control: str) -> None:
    line = text("a%sb", control)
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    assert f"a{control.encode('unicode_escape').decode()}b" in line
    assert escape_controls(f"ä→{control}日") == f"ä→{control.encode('unicode_escape').decode()}日"


def test_logger_and_level_names_are_escaped() -> None:
    one = record("m", name=FORGED)
    one.levelname = "\x1b[31m"
    assert TextLines().format(one).isprintable()


def test_traceback_lines_never_resemble_a_record() -> None:
    error = ValueError(f"{FORGED}\x1b[2J\r\u2028\u202e")
    first, *others = text("it failed", error=error).split("\n")
    assert first.endswith("ERROR   x: it failed")
    assert others[0] == "  Traceback (most recent call last):"
    assert others[-2:] == ["  ValueError: a", r"  12:00:00 ERROR   x: forged\x1b[2J\r\u2028\u202e"]
    assert all(line.startswith("  ") and line.isprintable() for line in others)


def test_traceback_has_all_chained_exceptions() -> None:
    error = ValueError("outer")
    error.__cause__ = KeyError("inner")
    assert "KeyError: 'inner'" in text("it failed", error=error)
    assert "KeyError: 'inner'" in parsed("it failed", error=error)["traceback"]


def test_requested_stack_is_shown() -> None:
    one = record("m")
    one.stack_info = "Stack (most recent call last):\n  File x\x1b"
    assert TextLines().format(one).split("\n")[1:] == ["  Stack (most recent call last):", r"    File x\x1b"]


@pytest.mark.parametrize("formatted", [text, parsed], ids=["text", "json"])
def test_unformattable_record_is_still_one_line(formatted: Any) -> None:
    assert "%d too few" in str(formatted("%d too few", "x"))
    assert "ValueError" in str(formatted(Unprintable()))
    assert "%s unprintable" in str(formatted("%s unprintable", Unprintable()))
    assert "Evil" in str(formatted("it failed", error=Evil()))


@pytest.mark.parametrize("formatted", [text, parsed], ids=["text", "json"])
def test_long_text_is_cut(formatted: Any) -> None:
    line = str(formatted("%s", "m" * 5_000_000, error=ValueError("v" * 5_000_000)))
    assert len(line) < 2 * MAX_TEXT + 1000
    assert f"({5_000_000 - MAX_TEXT} characters left out)" in line


@pytest.mark.parametrize("formatted", [text, parsed], ids=["text", "json"])
def test_long_names_are_cut(formatted: Any) -> None:
    assert len(str(formatted("hi", name="n" * 1_000_000))) < 1000


def test_json_log_replaces_lone_surrogates_only() -> None:
    line = parsed("a\ud800b\udcff😀", name="x\udfff")
    assert line["message"] == "a\ufffdb\ufffd😀"
    assert line["logger"] == "x\ufffd"
    assert parsed(FORGED)["message"] == FORGED


def test_one_line_is_short_and_printable() -> None:
    assert one_line("a\n b\t\x1b[31m\u202e") == r"a b \x1b[31m\u202e"
    assert len(one_line("x" * 10_000)) < 600
