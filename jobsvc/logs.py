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
from jobsvc.printable import cut, describe_exception, escape_controls

RQ_LEVEL = "WARNING"
"""Level of RQ's loggers: we log one line for each attempt; RQ would add four."""

MAX_TEXT = 64 * 1024
"""Longest message or traceback in a log line, in characters."""

MAX_NAME = 200
"""Longest name of a logger or level in a log line, in characters."""

_about: ContextVar[dict[str, Any] | None] = ContextVar("logged_attempt", default=None)


class TextLines(logging.Formatter):
    """Formats a record as one readable line; its traceback follows indented, so that no line looks like a record."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text. Never raises, whatever the record contains."""
        level, name, message = (escape_controls(one) for one in (*_names(record), _message(record)))
        lines = [f"{self.formatTime(record, self.datefmt)} {level:<7} {name}: {message}"]
        for more in _traceback(record), record.stack_info and cut(record.stack_info, MAX_TEXT):
            if more:
                lines += escape_controls(more, keep_newlines=True).split("\n")
        return "\n  ".join(lines)


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time, level, logger, message; in an attempt jobId, attempt and type."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, in ASCII. Never raises, whatever the record contains."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        level, name = _names(record)
        line: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": level,
            "logger": name,
            "message": _message(record),
            **(_about.get() or {}),
        }
        if trace := _traceback(record):
            line["traceback"] = trace
        # Strict JSON parsers reject the escape of a lone surrogate.
        return json.dumps({key: _without_surrogates(value) for key, value in line.items()})


def _names(record: logging.LogRecord) -> tuple[str, str]:
    """Return the names of the record's level and logger, cut to MAX_NAME; a handler may define its own."""
    return cut(record.levelname, MAX_NAME), cut(record.name, MAX_NAME)


def _message(record: logging.LogRecord) -> str:
    try:
        return cut(record.getMessage(), MAX_TEXT)
    except BaseException as error:  # arguments that don't match the format, or whose own code raises
        return cut(f"{record.msg!s}" if isinstance(record.msg, str) else f"({describe_exception(error)})", MAX_TEXT)


def _traceback(record: logging.LogRecord) -> str | None:
    if not record.exc_info or not isinstance(record.exc_info, tuple) or record.exc_info[1] is None:
        return record.exc_text
    error = record.exc_info[1]
    try:
        return cut("".join(traceback.format_exception(error)).rstrip("\n"), MAX_TEXT, keep_end=True)
    except BaseException as failure:
        return f"{type(error).__name__}; its traceback can't be made: {describe_exception(failure)}"


def _without_surrogates(value: Any) -> Any:
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value


class About:
    """A context manager: JSON lines within the block, and in threads that copy its context, name this attempt."""

    def __init__(self, job_id: str, job_type: str, attempt: int) -> None:
        self._named = {"jobId": job_id, "attempt": attempt, "type": job_type}

    def __enter__(self) -> None:
        self._token = _about.set(self._named)

    def __exit__(self, *_: object) -> None:
        _about.reset(self._token)


def to_stderr() -> None:
    """Log to stderr at level INFO. Does nothing if the root logger already has a handler."""
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _formatter() -> logging.Formatter:
    if settings().JOBSVC_LOG == "json":
        return JsonLines()
    return TextLines()


def set_up() -> None:
    """Set up logging by the settings, with RQ's loggers at RQ_LEVEL."""
    to_stderr()
    for name in ("rq", "rq.worker"):  # the latter sets itself to INFO
        logging.getLogger(name).setLevel(RQ_LEVEL)


def of_server() -> dict[str, Any]:
    """Return a logging configuration for granian, merged with its own, so that its lines look like ours."""
    formatter = JsonLines if settings().JOBSVC_LOG == "json" else TextLines
    return {
        "formatters": {"ours": {"()": formatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "ours"}},
        "loggers": {"_granian": {"handlers": ["stderr"], "propagate": False}},
    }
