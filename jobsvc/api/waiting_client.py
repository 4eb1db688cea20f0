"""The client of a request that is kept waiting: its address, and word of it when it has gone."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jobsvc.api.clients import client_address

CLIENT = "jobsvc.client"
"""Where a server that knows more of the client than its address puts it into the WSGI environ."""


class Client(Protocol):
    """The client of one request."""

    @property
    def address(self) -> str:
        """Its IP address, as `clients.client_address` has it."""

    def when_gone(self, callback: Callable[[], None]) -> None:
        """Call this, from any thread, once it makes no sense to keep this client waiting any longer."""


class _Unknown:
    """A client of a server that tells nothing of it but its address."""

    def __init__(self, address: str) -> None:
        self.address = address

    def when_gone(self, callback: Callable[[], None]) -> None:
        pass


def client_of(environ: Mapping[str, Any]) -> Client:
    """Return the client of the request of this WSGI environ."""
    known: Client | None = environ.get(CLIENT)
    return known or _Unknown(client_address(environ))
