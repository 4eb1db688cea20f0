"""The guard of outgoing requests: which addresses may be connected to, and as what a URL is read.

Names are resolved here and the addresses checked here, and the caller connects to exactly those,
so that no second look-up can answer otherwise.
"""

import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from jobsvc.config import Network, settings

Address = IPv4Address | IPv6Address

_6TO4_RELAYS = IPv4Network("192.88.99.0/24")
_NAT64 = IPv6Network("64:ff9b::/96")
_NOT_IN_A_URL = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
# As WHATWG has it, a name doesn't end with a number: 4294967296 is a wrong address.
_NAME = re.compile(r"([a-z0-9_-]+\.)*(?!(0x[0-9a-f]*|[0-9]+)\.?$)[a-z0-9_-]+\.?")


class AddressRefused(Exception):
    """The address is not a public one, and JOBSVC_HTTP_ALLOW doesn't name it."""


@dataclass(frozen=True)
class Url:
    """An http(s) URL in its parts; `target` is what the request line holds."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """What the Host header holds."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"


def read_url(text: str) -> Url:
    """Read an absolute http(s) URL. Raises ValueError with what is wrong with it."""
    if _NOT_IN_A_URL.search(text):
        raise ValueError("has a space, a backslash or a control character")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https"):
        raise ValueError("must start with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password; use a header")
    host = parts.hostname or ""
    if ":" not in host:
        try:
            host = host.encode("idna").decode().lower()
        except UnicodeError:
            host = ""
    if literal(host) is None and not _NAME.fullmatch(host):
        raise ValueError("has no valid host")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(parts.scheme, host, parts.port or {"http": 80, "https": 443}[parts.scheme], target)


def public_url(text: str) -> str:
    """The URL as it is, for requests to be sent to. Raises ValueError for one that spells an address not allowed."""
    spelled = literal(read_url(text).host)
    if spelled is not None and not is_allowed(spelled, settings().JOBSVC_HTTP_ALLOW):
        raise ValueError(f"{spelled} is not a public address; JOBSVC_HTTP_ALLOW can let it in")
    return text


def literal(host: str) -> Address | None:
    """The address that a host spells out, in any way that resolvers understand (0x7f.1, 2130706433), or None."""
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host.removesuffix(".")))
    except OSError:
        return None


def is_allowed(address: Address, allow: Sequence[Network]) -> bool:
    """Whether the address is a public one, or in one of the networks `allow`."""
    reached: list[Address] = [*_embedded(address)] or [address]
    if any(form in network for form in (address, *reached) for network in allow):
        return True
    return all(map(_is_public, reached))


def _is_public(address: Address) -> bool:
    if address in _6TO4_RELAYS or (isinstance(address, IPv6Address) and address.is_site_local):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _embedded(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that an IPv6 one leads to."""
    if isinstance(address, IPv4Address):
        return
    if address.ipv4_mapped:
        yield address.ipv4_mapped
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    if address in _NAT64:
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def resolve(url: Url, allow: Sequence[Network]) -> list[str]:
    """The addresses of the URL's host, in the resolver's order, all of them checked.

    Raises AddressRefused when any is not allowed, OSError when there is none.
    """
    spelled = literal(url.host)
    if spelled is not None:
        addresses = [spelled]
    else:
        found = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(ip_address(entry[4][0]) for entry in found))
    for address in addresses:
        if not is_allowed(address, allow):
            raise AddressRefused(f"{url.host} leads to {address}, which is not a public address")
    return [str(address) for address in addresses]
