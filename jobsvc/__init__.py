"""jobsvc: a job queue with an HTTP API. Modules with handlers import from here."""

from jobsvc.handlers import Context, Discard, RetryAfter, Snooze, handler

__all__ = ["Context", "Discard", "RetryAfter", "Snooze", "handler"]
