"""Safe inspection of handlers' exceptions and of what they wrap.

An exception's class may override `__getattr__`, `__class__`, `__cause__` and more, and each override may raise, hang
or return anything. So attributes are read by BaseException's own descriptors, which no subclass can override, and no
handler code is called here.
"""

from collections.abc import Iterator
from contextlib import suppress
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from types import TracebackType
from typing import Any

from jobsvc.strict_json import cut

MAX_TYPE = 200
"""Characters of a class, module, file or function name; names written by people are shorter."""

MAX_EXCEPTIONS = 100_000
"""Exceptions visited in one chain, which takes about 0.1 s."""

_cause: Any = vars(BaseException)["__cause__"]
_context: Any = vars(BaseException)["__context__"]
_suppress: Any = vars(BaseException)["__suppress_context__"]
_trace: Any = vars(BaseException)["__traceback__"]
_attributes: Any = vars(BaseException)["__dict__"]
_members: Any = vars(BaseExceptionGroup)["exceptions"]
_name: Any = vars(type)["__name__"]
_qualified_name: Any = vars(type)["__qualname__"]
_module: Any = vars(type)["__module__"]


def is_a(error: BaseException, kind: type[BaseException]) -> bool:
    """Return True if the exception is of this class; unlike `isinstance`, without reading its `__class__`."""
    return type.__subclasscheck__(kind, type(error))


def type_name(error: BaseException) -> str:
    """Return the real name of the exception's class, cut to MAX_TYPE."""
    return cut(_name.__get__(type(error)), MAX_TYPE)


def title(error: BaseException) -> str:
    """Return the name of the exception's class with its module, as Python's own tracebacks show it."""
    kind = type(error)
    name = cut(_qualified_name.__get__(kind), MAX_TYPE)
    try:
        module = _module.__get__(kind)
    except AttributeError:
        return name
    prefix = cut(module, MAX_TYPE) if is_text(module) else "builtins"
    return name if prefix in ("builtins", "__main__") else f"{prefix}.{name}"


def is_text(value: Any) -> bool:
    """Return True if this is a `str`; unlike `isinstance`, without reading the value's `__class__`."""
    return type.__subclasscheck__(str, type(value))


def trace_of(error: BaseException) -> TracebackType | None:
    """Return the exception's traceback."""
    trace: TracebackType | None = _trace.__get__(error)
    return trace


def raised_from(error: BaseException) -> tuple[BaseException | None, bool]:
    """Return the exception that Python shows before this one or None, and True if it is the cause."""
    cause: BaseException | None = _cause.__get__(error)
    context: BaseException | None = None if _suppress.__get__(error) else _context.__get__(error)
    return (context, False) if cause is None else (cause, True)


def members_of(error: BaseException) -> tuple[BaseException, ...]:
    """Return the exceptions of a group; () for any other exception."""
    return tuple(_members.__get__(error) or ()) if is_a(error, BaseExceptionGroup) else ()


def notes_of(error: BaseException, limit: int) -> tuple[list[Any], int]:
    """Return up to `limit` notes (PEP 678) of an exception, and their total number."""
    notes: Any = dict.get(_attributes.__get__(error), "__notes__")
    if not type.__subclasscheck__(list, type(notes)):
        return [], 0
    first: list[Any] = list.__getitem__(notes, slice(limit))
    return first, list.__len__(notes)


def levels(error: BaseException, *, with_suppressed: bool) -> Iterator[list[BaseException]]:
    """Yield the exception, then all that it wraps directly, then all that those wrap, and so on.

    An exception wraps the members of its group, its cause and its context. A context that `raise … from` has
    suppressed is visited only if `with_suppressed`. Each exception comes once, up to MAX_EXCEPTIONS in all.
    """
    seen = {id(error)}
    level = [error]
    while level:
        yield level
        below: list[BaseException] = []
        for one in level:
            for wrapped in _wrapped(one, with_suppressed):
                if len(seen) < MAX_EXCEPTIONS and id(wrapped) not in seen:
                    seen.add(id(wrapped))
                    below.append(wrapped)
        level = below


def _wrapped(error: BaseException, with_suppressed: bool) -> Iterator[BaseException]:
    yield from members_of(error)
    if (cause := _cause.__get__(error)) is not None:
        yield cause
    if (context := _context.__get__(error)) is not None and (with_suppressed or not _suppress.__get__(error)):
        yield context


def clear_frames(error: BaseException) -> None:
    """Clear the local variables in the traceback frames of the exception and of all that it wraps.

    Frees the handler's memory, so that there is enough for the texts, and breaks cycles. Frames of generators and
    coroutines are skipped: clearing a suspended one would close it while it may still be in use.
    """
    for level in levels(error, with_suppressed=True):
        for one in level:
            trace = _trace.__get__(one)
            while trace is not None:
                frame = trace.tb_frame
                if not frame.f_code.co_flags & (CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR):
                    with suppress(RuntimeError):  # it is still being executed
                        frame.clear()
                trace = trace.tb_next


def release(error: BaseException) -> None:
    """Remove the tracebacks, causes and contexts of the exception and of all that it wraps."""
    for one in [one for level in levels(error, with_suppressed=True) for one in level]:
        drop(one)
        _cause.__set__(one, None)


def drop(error: BaseException) -> None:
    """Remove the traceback and the context of one exception."""
    _trace.__set__(error, None)
    _context.__set__(error, None)
