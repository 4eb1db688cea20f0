"""Clients: the address behind a request, whether it is still connected, and wrong keys per network."""

import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from threading import Lock
from typing import Any, Protocol

from jobsvc.config import settings

MAX_WRONG_KEYS = 20
"""Wrong keys allowed per network within WINDOW_SECONDS; each further one is answered with 429."""

WINDOW_SECONDS = 60

MAX_NETWORKS = 10_000
"""Networks whose wrong keys are tracked, about 10 MB at most. Beyond that, the longest idle one is dropped."""

CLIENT = "jobsvc.client"
"""Key in the WSGI environ for the Client object of a server that detects disconnects."""


def client_address(environ: Mapping[str, Any]) -> str:
    """Return the client's IP address in its shortest form, "" if there is none. environ: a WSGI environ.

    The address is the peer's, or with JOBSVC_TRUST_PROXY=1 the last one in X-Forwarded-For. The result is the same
    before and after werkzeug's ProxyFix has changed the environ.
    """
    original = environ.get("werkzeug.proxy_fix.orig", environ)
    if settings().JOBSVC_TRUST_PROXY:
        forwarded = _read(environ.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2])
        if forwarded:
            return forwarded
    return _read(original.get("REMOTE_ADDR") or "")


def network_of(address: str) -> str:
    """Return the network that counts as one client: the /64 of an IPv6 address, else the address itself."""
    if ":" in address:
        return str(ip_network(f"{address.partition('%')[0]}/64", strict=False))
    return address


@lru_cache(maxsize=1024)
def _read(text: str) -> str:
    """Return an address without the brackets and port that some proxies add; "" if the text is no address."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return ""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


class WrongKeys:
    """Times of the latest wrong keys per network, in this process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def count(self, network: str) -> int | None:
        """Count one more wrong key of this network.

        Returns None within the limit, else the seconds (whole, at least 1) until another one is allowed.
        """
        now = time.monotonic()
        with self._lock:
            times = self._times.setdefault(network, deque(maxlen=MAX_WRONG_KEYS + 1))
            self._times.move_to_end(network)
            if len(self._times) > MAX_NETWORKS:
                self._times.popitem(last=False)
            times.append(now)
            if len(times) <= MAX_WRONG_KEYS or times[0] <= now - WINDOW_SECONDS:
                return None
            return max(1, math.ceil(times[1] + WINDOW_SECONDS - now))


class Client(Protocol):
    """The client of one request."""

    @property
    def address(self) -> str:
        """Its IP address, as returned by `client_address`."""

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
