"""Where a job belongs in somebody's trace: W3C Trace Context, and OpenTelemetry's spans where those are wanted.

`span`, `current`, `failed` and `flush` do nothing unless `set_up` found OpenTelemetry configured.
"""

import re
import secrets
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal
from uuid import UUID

Kind = Literal["PRODUCER", "CLIENT", "CONSUMER"]

# W3C Trace Context level 2, §3.2: a later version may have more at its end.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KNOWN_FLAGS = 0b11  # sampled, random


def read(header: str | None) -> str | None:
    """A `traceparent` header in the version that is known here, 00; None for one that is not valid."""
    found = _TRACEPARENT.fullmatch((header or "").strip())
    if found is None or (found[1] == "00" and found[5]):
        return None
    return f"00-{found[2]}-{found[3]}-{int(found[4], 16) & _KNOWN_FLAGS:02x}"


def outgoing(job_id: str, traceparent: str | None) -> str:
    """The header to send on in a job's name: of the running span, else of the job's trace, with an id of its own.

    A job that came without a trace has one of its own: the job's id.
    """
    if here := current():
        return here
    version, trace, _, flags = (traceparent or f"00-{UUID(job_id).hex}--00").split("-")
    return f"{version}-{trace}-{secrets.token_hex(8)}-{flags}"


_nothing = nullcontext()


def _no_span(
    name: str, kind: Kind, parent: str | None = None, links: Iterable[str | None] = (), **attributes: Any
) -> AbstractContextManager[None]:
    """A span around a block, a child of the running one, else of `parent`; the others are traceparents, too."""
    return _nothing


def _no_current() -> str | None:
    """The running span's traceparent."""
    return None


def _not_failed(kind: str, message: str, traceback: str) -> None:
    """Note on the running span that an exception of this kind, by its texts, ended what it is about."""


def _no_flush() -> None:
    """Export the spans that have ended, before the process does."""


span: Callable[..., AbstractContextManager[None]] = _no_span
current: Callable[[], str | None] = _no_current
failed: Callable[[str, str, str], None] = _not_failed
flush: Callable[[], None] = _no_flush


def is_on() -> bool:
    """Return True if spans are made."""
    return span is not _no_span


def set_up() -> None:
    """From now on make spans, if OpenTelemetry's API is installed and a tracer provider is configured."""
    global span, current, failed, flush
    try:
        from opentelemetry import trace
    except ImportError:
        return
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # it stands in for none
        return
    from jobsvc.tracing import otel

    span, current, failed, flush = otel.span, otel.current, otel.failed, otel.flush
