"""How a process logs: on stderr, readable lines, or a JSON object each, as JOBSVC_LOG says."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from jobsvc.config import settings

RQ_LEVEL = "WARNING"
"""RQ's own level: our line says how an attempt ended; RQ would add four."""

_about: ContextVar[dict[str, Any] | None] = ContextVar("logged_attempt", default=None)


class JsonLines(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message; within an attempt jobId, attempt and type."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, in ASCII."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": moment.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **(_about.get() or {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


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
    return logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S")


def set_up() -> None:
    """As the settings say, RQ's own lines the fewest."""
    to_stderr()
    for name in ("rq", "rq.worker"):  # the latter sets itself to INFO
        logging.getLogger(name).setLevel(RQ_LEVEL)


def of_server() -> dict[str, Any] | None:
    """granian's logging, to be merged with its own; None for lines as it writes them."""
    if settings().JOBSVC_LOG != "json":
        return None
    return {
        "formatters": {"json": {"()": JsonLines}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "loggers": {"_granian": {"handlers": ["stderr"], "propagate": False}},
    }
