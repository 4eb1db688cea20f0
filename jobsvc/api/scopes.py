"""The scopes of API keys, each of which includes those before it."""

from flask import g

from jobsvc.config import Scope, settings

_LADDER: tuple[Scope, ...] = ("read", "write", "admin")


def includes(scope: Scope, needed: Scope) -> bool:
    """Return True if a key with `scope` may do what requires the scope `needed`."""
    return _LADDER.index(scope) >= _LADDER.index(needed)


def has_scope(needed: Scope) -> bool:
    """Return True if the caller may do what requires this scope: by its key, or because there are no keys."""
    return settings().is_open or includes(g.get("scope", "read"), needed)
