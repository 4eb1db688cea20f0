"""Makes untrusted text safe to print on a terminal or in a log."""

import re

MAX_LINE = 500
"""Longest text in an error message at start, in characters: enough for a driver's message."""

# C0 and C1 controls, DEL, line separators, marks that change the direction of text, lone surrogates.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROLS_BUT_NEWLINES = re.compile(_CONTROLS.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))


def escape_controls(text: str, keep_newlines: bool = False) -> str:
    """Replace control characters with Python escapes, such as `\\n` and `\\x1b`."""
    pattern = _CONTROLS_BUT_NEWLINES if keep_newlines else _CONTROLS
    return pattern.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """Return the text as one line of at most MAX_LINE characters, without control characters."""
    line = escape_controls(" ".join(text.split()))
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}…"


def describe_exception(error: BaseException) -> str:
    """Return an exception's message as one line, or its class if the message is empty or can't be made."""
    try:
        return one_line(str(error)) or type(error).__name__
    except BaseException:  # the exception's own code may raise anything
        return f"{type(error).__name__}, which has no printable message"
