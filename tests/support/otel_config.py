"""OpenTelemetry, configured as in a user's module: here with spans as JSON lines in $SPANS."""

import os
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

_file = Path(os.environ["SPANS"]).open("a")  # noqa: SIM115
_provider = TracerProvider()
_provider.add_span_processor(
    BatchSpanProcessor(
        ConsoleSpanExporter(out=_file, formatter=lambda span: span.to_json(indent=None) + "\n"),
        schedule_delay_millis=1000,  # longer than the process of an attempt lives
    )
)
trace.set_tracer_provider(_provider)
