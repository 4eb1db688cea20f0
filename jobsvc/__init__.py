"""jobsvc: a job queue behind HTTP. A module of handlers imports what it needs from here."""

from jobsvc.handlers import Context, Discard, Snooze, handler

__all__ = ["Context", "Discard", "Snooze", "handler"]
