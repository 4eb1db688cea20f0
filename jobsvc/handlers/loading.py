"""Imports the handlers' modules; an import error becomes one line with file and line number."""

import importlib
import importlib.util
import os
import sys
import sysconfig
import traceback
from collections.abc import Sequence
from pathlib import Path

import jobsvc
from jobsvc.errors import HandlerError
from jobsvc.handlers import registry
from jobsvc.printable import describe_exception

BUILT_IN = (
    "jobsvc.handlers.builtin.test_job",
    "jobsvc.handlers.builtin.http_request",
    "jobsvc.handlers.builtin.webhook",
)

_IMPORTLIB = str(Path(importlib.__file__).parent) + os.sep
_OURS = str(Path(jobsvc.__file__).parent) + os.sep
_PACKAGES = tuple(sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib"))
_PYTHON = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib"))


def load(modules: Sequence[str], queues: Sequence[str]) -> None:
    """Import the built-in handlers and these modules, with the working directory on the path.

    Raises HandlerError, one line with file and line number, if a module can't be imported or a handler's
    queue is not in `queues`.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for module in BUILT_IN:
        importlib.import_module(module)
    for module in modules:
        _import(module)
    for known in registry.every():
        if known.queue is not None and known.queue not in queues:
            code = getattr(known.function, "__code__", None)
            place = f"{_place(code.co_filename, code.co_firstlineno)}: " if code else ""
            raise HandlerError(
                f"JOBSVC_HANDLERS: {place}{known.name}: its queue {known.queue!r} is not among JOBSVC_QUEUES"
            )


def _import(module: str) -> None:
    try:
        imported = importlib.import_module(module)
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: they would exit without a message
        place = _place_of(error, module)
        what = f"{place}: {_describe(error)}" if place else f"{module} can't be imported: {_describe(error)}"
        raise HandlerError(f"JOBSVC_HANDLERS: {what}") from None
    if getattr(imported, "__file__", None) is None and hasattr(imported, "__path__"):
        raise HandlerError(f"JOBSVC_HANDLERS: {module} is a folder without __init__.py, so it has no handlers")


def _describe(error: BaseException) -> str:
    if isinstance(error, HandlerError):
        return describe_exception(error)
    if isinstance(error, SyntaxError) and isinstance(error.msg, str):
        code = (error.text or "").strip() if isinstance(error.text, str) else ""
        return f"{error.msg}: {code}" if code else error.msg
    name, message = type(error).__name__, describe_exception(error)
    return name if message.startswith(name) else f"{name}: {message}"


def _place_of(error: BaseException, module: str) -> str | None:
    """Return file and line of the error: of the syntax error, else of the innermost frame in the user's code."""
    if isinstance(error, SyntaxError) and isinstance(error.filename, str) and os.path.exists(error.filename):
        return _place(error.filename, error.lineno)
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    outside = [one for one in places if not one[0].startswith((_OURS, _IMPORTLIB, "<frozen "))]
    if not outside:
        return _place_of_unreadable(module)
    installed = [one for one in outside if one[0].startswith(_PACKAGES) or not one[0].startswith(_PYTHON)]
    own = [one for one in installed if not one[0].startswith(_PACKAGES)]
    return _place(*(own or installed or outside)[-1])


def _place_of_unreadable(module: str) -> str | None:
    """Return file and line of an error that has no frame in the module: NUL bytes, or no permission to read it."""
    try:
        spec = importlib.util.find_spec(module)
    except Exception:
        return None
    if spec is None or spec.origin is None or not os.path.isfile(spec.origin):
        return None
    try:
        before = Path(spec.origin).read_bytes().partition(b"\0")
    except OSError:
        return _place(spec.origin, 1)
    return _place(spec.origin, before[0].count(b"\n") + 1 if before[1] else 1)


def _place(filename: str, line: int | None) -> str:
    inside = os.path.relpath(filename)
    return f"{filename if inside.startswith(os.pardir) else inside}, line {line or 1}"
