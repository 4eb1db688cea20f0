"""Logging to stderr: readable lines, or one JSON object a line, as set by JOBSVC_LOG.

Logged texts may be untrusted: from handlers, exceptions, request paths. Control characters are escaped,
so that a record is one line, and long texts are cut.
"""

import json
import logging
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from jobsvc.config import settings
from jobsvc.printable import describe_exception, escape_controls

RQ_LEVEL = "WARNING"
"""Level of RQ's loggers: we log one line for each attempt; RQ would add four."""

MAX_TEXT = 64 * 1024
"""Longest message or traceback in a log line, in characters."""

MAX_NAME = 200
"""Longest name of a logger or level in a log line, in characters."""

_fields: ContextVar[dict[str, Any] | None] = ContextVar("logged_attempt", default=None)


class TextLines(logging.Formatter):
    """Formats a record as one readable line; the lines of a traceback follow, indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text. Never raises."""
        level, name, message = (escape_controls(one) for one in (*_names(record), _message(record)))
        lines = [f"{self.formatTime(record, self.datefmt)} {level:<7} {name}: {message}"]
        for more in _traceback(record), record.stack_info and _cut(record.stack_info, MAX_TEXT):
            if more:
                lines += escape_controls(more, keep_newlines=True).split("\n")
        return "\n  ".join(lines)


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, message; in an attempt jobId, attempt and type."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, in ASCII. Never raises."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        level, name = _names(record)
        line: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": level,
            "logger": name,
            "message": _message(record),
            **(_fields.get() or {}),
        }
        if trace := _traceback(record):
            line["traceback"] = trace
        # Strict JSON parsers reject the escape of a lone surrogate.
        return json.dumps({key: _without_surrogates(value) for key, value in line.items()})


def _names(record: logging.LogRecord) -> tuple[str, str]:
    """Return the names of the record's level and logger, cut to MAX_NAME; a handler may define its own."""
    return _cut(record.levelname, MAX_NAME), _cut(record.name, MAX_NAME)


def _message(record: logging.LogRecord) -> str:
    try:
        return _cut(record.getMessage(), MAX_TEXT)
    except BaseException as error:  # arguments that don't match the format, or whose own code raises
        return _cut(f"{record.msg!s}" if isinstance(record.msg, str) else f"({describe_exception(error)})", MAX_TEXT)


def _traceback(record: logging.LogRecord) -> str | None:
    if not record.exc_info or not isinstance(record.exc_info, tuple) or record.exc_info[1] is None:
        return record.exc_text
    error = record.exc_info[1]
    try:
        return _cut("".join(traceback.format_exception(error)).rstrip("\n"), MAX_TEXT, keep_end=True)
    except BaseException as failure:
        return f"{type(error).__name__}; its traceback can't be made: {describe_exception(failure)}"


def _cut(text: str, limit: int, keep_end: bool = False) -> str:
    """Return the text, or its first (or last) `limit` characters and how many were left out."""
    if len(text) <= limit:
        return text
    left_out = f"({len(text) - limit} characters left out)"
    return f"{left_out} {text[-limit:]}" if keep_end else f"{text[:limit]} {left_out}"


def _without_surrogates(value: Any) -> Any:
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value


class AttemptFields:
    """A context manager: JSON lines of its block, and of threads with its context, contain these fields."""

    def __init__(self, job_id: str, job_type: str, attempt: int) -> None:
        self._attempt = {"jobId": job_id, "attempt": attempt, "type": job_type}

    def __enter__(self) -> None:
        self._token = _fields.set(self._attempt)

    def __exit__(self, *_: object) -> None:
        _fields.reset(self._token)


def to_stderr() -> None:
    """Log to stderr at level INFO. Does nothing if the root logger already has a handler."""
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter()())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _formatter() -> type[logging.Formatter]:
    return JsonLines if settings().JOBSVC_LOG == "json" else TextLines


def set_up() -> None:
    """Set up logging by the settings, with RQ's loggers at RQ_LEVEL."""
    to_stderr()
    for name in ("rq", "rq.worker"):  # the latter sets itself to INFO
        logging.getLogger(name).setLevel(RQ_LEVEL)


def server_config() -> dict[str, Any]:
    """Return a logging configuration that makes granian format its lines as we do."""
    return {
        "formatters": {"ours": {"()": _formatter()}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "ours"}},
        "loggers": {"_granian": {"handlers": ["stderr"], "propagate": False}},
    }
