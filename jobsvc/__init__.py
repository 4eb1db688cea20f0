"""jobsvc: a job queue with an HTTP API. Modules with handlers import from here."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobsvc.handlers import Context, Discard, RetryAfter, Snooze, handler
else:

    def __getattr__(name: str) -> object:
        """Import `jobsvc.handlers` at the first use of a name: jobsvc.client needs nothing of it."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, getattr(importlib.import_module("jobsvc.handlers"), name))


__all__ = ["Context", "Discard", "RetryAfter", "Snooze", "handler"]

__version__ = "0.2.0.dev0"
"""The one place of the version: the package and the OpenAPI document take it from here."""
