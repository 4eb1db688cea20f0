"""Traces: W3C Trace Context for every job, and OpenTelemetry spans where a tracer provider is configured.

`span`, `current_traceparent`, `record_failure` and `flush` do nothing unless `set_up` found one. OpenTelemetry's API
is an optional package, which is imported only by `set_up`.
"""

import re
import secrets
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal
from uuid import UUID

Kind = Literal["PRODUCER", "CLIENT", "CONSUMER"]

FLUSH_SECONDS = 2
"""Longest time that a process spends on exporting its last spans before it exits."""

# W3C Trace Context level 2, §3.2: a later version may append more.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KNOWN_FLAGS = 0b11  # sampled, random

_otel: Any = None  # the module opentelemetry.trace, if spans are made
_no_span = nullcontext()


def parse_traceparent(header: str | None) -> str | None:
    """Return a `traceparent` header in version 00; None if it is not valid."""
    found = _TRACEPARENT.fullmatch((header or "").strip())
    if found is None or (found[1] == "00" and found[5]):
        return None
    return f"00-{found[2]}-{found[3]}-{int(found[4], 16) & _KNOWN_FLAGS:02x}"


def outgoing_traceparent(job_id: str, traceparent: str | None) -> str:
    """Return the header for a request that a job sends: the current span, else a new id in the job's trace.

    traceparent: the one that the job came with. Without one, the job's id is its trace.
    """
    if current := current_traceparent():
        return current
    version, trace, _, flags = (traceparent or f"00-{UUID(job_id).hex}--00").split("-")
    return f"{version}-{trace}-{secrets.token_hex(8)}-{flags}"


def is_on() -> bool:
    """Return True if spans are made."""
    return _otel is not None


def set_up() -> None:
    """Make spans from now on, if OpenTelemetry's API is installed and a tracer provider is configured."""
    global _otel
    try:
        from opentelemetry import trace
    except ImportError:
        return
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # a placeholder
        _otel = trace


def span(
    name: str, kind: Kind, parent: str | None = None, links: Iterable[str | None] = (), **attributes: Any
) -> AbstractContextManager[Any]:
    """Return a span around a block: a child of the current span, else of `parent`. Parent and links: traceparents."""
    if _otel is None:
        return _no_span
    above = _otel.get_current_span()
    if parent and not above.get_span_context().is_valid:
        above = _otel.NonRecordingSpan(_context(parent))
    made: AbstractContextManager[Any] = _otel.get_tracer("jobsvc").start_as_current_span(
        name,
        _otel.set_span_in_context(above),
        _otel.SpanKind[kind],
        {f"jobsvc.{key}": value for key, value in attributes.items()},
        [_otel.Link(_context(one)) for one in links if one],
    )
    return made


def current_traceparent() -> str | None:
    """Return the traceparent of the current span, None without one."""
    if _otel is None:
        return None
    here = _otel.get_current_span().get_span_context()
    if not here.is_valid:
        return None
    return f"00-{_otel.format_trace_id(here.trace_id)}-{_otel.format_span_id(here.span_id)}-{here.trace_flags:02x}"


def record_failure(kind: str, message: str, traceback: str) -> None:
    """Mark the current span as failed, with an exception event by OpenTelemetry's semantic conventions."""
    if _otel is None:
        return
    here = _otel.get_current_span()
    texts = {"exception.type": kind, "exception.message": message, "exception.stacktrace": traceback}
    here.add_event("exception", texts)
    here.set_status(_otel.Status(_otel.StatusCode.ERROR, kind))


def flush() -> None:
    """Export the ended spans, before this process exits."""
    if _otel is None:
        return
    if force_flush := getattr(_otel.get_tracer_provider(), "force_flush", None):
        force_flush(FLUSH_SECONDS * 1000)


def _context(traceparent: str) -> Any:
    _, trace_id, span_id, flags = traceparent.split("-")
    return _otel.SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=_otel.TraceFlags(int(flags, 16))
    )
