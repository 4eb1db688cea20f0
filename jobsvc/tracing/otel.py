"""`tracing` by OpenTelemetry; imported where it is configured, and nowhere else."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

FLUSH_SECONDS = 2

_tracer = trace.get_tracer("jobsvc")


@contextmanager
def span(
    name: str, kind: str, parent: str | None = None, links: Iterable[str | None] = (), **attributes: Any
) -> Iterator[None]:
    """See `tracing`."""
    running = trace.get_current_span()
    if parent and not running.get_span_context().is_valid:
        running = NonRecordingSpan(_context(parent))
    with _tracer.start_as_current_span(
        name,
        trace.set_span_in_context(running),
        SpanKind[kind],
        {f"jobsvc.{key}": value for key, value in attributes.items()},
        [Link(_context(one)) for one in links if one],
    ):
        yield


def current() -> str | None:
    """See `tracing`."""
    here = trace.get_current_span().get_span_context()
    if not here.is_valid:
        return None
    return f"00-{trace.format_trace_id(here.trace_id)}-{trace.format_span_id(here.span_id)}-{here.trace_flags:02x}"


def failed(kind: str, message: str, traceback: str) -> None:
    """See `tracing`. The event is the one of OpenTelemetry's semantic conventions for exceptions."""
    here = trace.get_current_span()
    texts = {"exception.type": kind, "exception.message": message, "exception.stacktrace": traceback}
    here.add_event("exception", texts)
    here.set_status(Status(StatusCode.ERROR, kind))


def flush() -> None:
    """See `tracing`."""
    if force_flush := getattr(trace.get_tracer_provider(), "force_flush", None):
        force_flush(FLUSH_SECONDS * 1000)


def _context(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
