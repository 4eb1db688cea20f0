"""The client of a waiting request: its address, and a callback for when it has disconnected."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jobsvc.api.clients import client_address

CLIENT = "jobsvc.client"
"""Key in the WSGI environ for the Client object of a server that detects disconnects."""


class Client(Protocol):
    """The client of one request."""

    @property
    def address(self) -> str:
        """Its IP address, as returned by `clients.client_address`."""

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Have `callback` called, in any thread, once it is pointless to keep this client waiting."""


class _Unknown:
    """A client whose server provides only its address; disconnects are not detected."""

    def __init__(self, address: str) -> None:
        self.address = address

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        pass


def client_of(environ: Mapping[str, Any]) -> Client:
    """Return the client of the request with this WSGI environ."""
    known: Client | None = environ.get(CLIENT)
    return known or _Unknown(client_address(environ))
