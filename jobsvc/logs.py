"""How a process logs: on stderr, readable lines, or a JSON object each, as JOBSVC_LOG says.

What is logged may come from strangers: handlers, exceptions, paths of requests. Control characters
are escaped, so that a record is one line, and texts without end are cut.
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
"""RQ's own level: our line says how an attempt ended; RQ would add four."""

MAX_TEXT = 64 * 1024
"""Longest message or traceback in a log line, in characters."""

MAX_NAME = 200
"""Longest name of a logger or level in a log line, in characters."""

_about: ContextVar[dict[str, Any] | None] = ContextVar("logged_attempt", default=None)


class TextLines(logging.Formatter):
    """A record as one readable line; lines of its traceback follow, indented, so that none looks like a record."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text. Raises nothing, whatever the record holds."""
        level, name, message = (escape_controls(one) for one in (*_names(record), _message(record)))
        lines = [f"{self.formatTime(record, self.datefmt)} {level:<7} {name}: {message}"]
        for more in _traceback(record), record.stack_info and cut(record.stack_info, MAX_TEXT):
            if more:
                lines += escape_controls(more, keep_newlines=True).split("\n")
        return "\n  ".join(lines)


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message; within an attempt jobId, attempt and type."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, in ASCII. Raises nothing, whatever the record holds."""
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
        # A lone surrogate is no text, and strict readers of JSON refuse its escape.
        return json.dumps({key: _without_surrogates(value) for key, value in line.items()})


def _names(record: logging.LogRecord) -> tuple[str, str]:
    """Return the names of the record's level and logger, either of which may be a handler's own."""
    return cut(record.levelname, MAX_NAME), cut(record.name, MAX_NAME)


def _message(record: logging.LogRecord) -> str:
    try:
        return cut(record.getMessage(), MAX_TEXT)
    except BaseException as error:  # arguments that don't fit, or whose own code raises
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
    """Within the block, and in threads that take its context along, JSON lines name this attempt."""

    def __init__(self, job_id: str, job_type: str, attempt: int) -> None:
        self._named = {"jobId": job_id, "attempt": attempt, "type": job_type}

    def __enter__(self) -> None:
        self._token = _about.set(self._named)

    def __exit__(self, *_: object) -> None:
        _about.reset(self._token)


def to_stderr() -> None:
    """One line for one event: the time, who says it, what it says. Nothing where root has a handler already."""
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _formatter() -> logging.Formatter:
    if settings().JOBSVC_LOG == "json":
        return JsonLines()
    return TextLines()


def set_up() -> None:
    """As the settings say, RQ's own lines the fewest."""
    to_stderr()
    for name in ("rq", "rq.worker"):  # the latter sets itself to INFO
        logging.getLogger(name).setLevel(RQ_LEVEL)


def of_server() -> dict[str, Any]:
    """Return granian's logging, to be merged with its own: its lines look like ours."""
    formatter = JsonLines if settings().JOBSVC_LOG == "json" else TextLines
    return {
        "formatters": {"ours": {"()": formatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "ours"}},
        "loggers": {"_granian": {"handlers": ["stderr"], "propagate": False}},
    }
