"""Handlers: the functions that run jobs, registered by job type."""

from jobsvc.handlers.context import Context, Discard, RetryAfter, Snooze
from jobsvc.handlers.loading import load
from jobsvc.handlers.registry import DELIVERY, Handler, find, handler, loop_types, names, types
