"""jobsvc: a job queue with an HTTP API. Modules with handlers import from here."""

from jobsvc.handlers import Context, Discard, RetryAfter, Snooze, handler

__all__ = ["Context", "Discard", "RetryAfter", "Snooze", "handler"]

__version__ = "0.2.0.dev0"
"""The one place of the version: the package and the OpenAPI document take it from here."""
