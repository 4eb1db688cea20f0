"""SSRF protection of outgoing requests: parses URLs and checks which addresses may be connected to.

Names are resolved and their addresses checked here. The caller connects to exactly these addresses,
so that a second lookup can't return others.
"""

import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urljoin, urlsplit

from jobsvc.config import Network, settings

Address = IPv4Address | IPv6Address

_6TO4_RELAYS = IPv4Network("192.88.99.0/24")
_NAT64 = IPv6Network("64:ff9b::/96")
MAX_NAME = 254
"""Maximum characters of a host name, including its final dot (RFC 1035 §3.1)."""

_PORTS = {"http": 80, "https": 443}
_NOT_IN_A_URL = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_HOST_AND_PORT = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
# By the WHATWG URL standard a name doesn't end with a number: 4294967296 is an invalid address.
_NAME = re.compile(r"([a-z0-9_-]+\.)*(?!(0x[0-9a-f]*|[0-9]+)\.?$)[a-z0-9_-]+\.?")


class AddressRefused(Exception):
    """The address is not public, and not in JOBSVC_HTTP_ALLOW."""


@dataclass(frozen=True)
class Url:
    """A parsed http(s) URL; `target` is the request line's target: path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def read_url(text: str) -> Url:
    """Parse an absolute http(s) URL. Raises ValueError with the reason if it is invalid."""
    if _NOT_IN_A_URL.search(text):
        raise ValueError("has a space, a backslash or a control character")
    try:
        parts = urlsplit(text)
    except ValueError:  # brackets without an IPv6 address, or invalid characters in the host
        raise ValueError("has no valid host") from None
    if parts.scheme not in _PORTS:
        raise ValueError("must start with http:// or https://")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password; use a header")
    host, port = _host(parts), _port(parts)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(parts.scheme, host, port, target)


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if ":" not in host:
        try:
            host = host.encode("idna").decode().lower()
        except UnicodeError:
            host = ""
    if literal(host) is None and (len(host) > MAX_NAME or not _NAME.fullmatch(host)):
        raise ValueError("has no valid host")
    return host


def _port(parts: SplitResult) -> int:
    """Return the port; the scheme's default only if none is given (urllib3/urllib3#5071)."""
    found = _HOST_AND_PORT.fullmatch(parts.netloc)
    if found and found[1] is None:
        return _PORTS[parts.scheme]
    if not found or not 1 <= int(found[1]) <= 65535:
        raise ValueError("has no valid port; ports go from 1 to 65535")
    return int(found[1])


def join(base: str, reference: str) -> str:
    """Return the URL of a redirect from `base` (RFC 3986 §5). Raises ValueError for invalid characters.

    A reference with a scheme or two slashes is not joined; urljoin would read `http:///x` as a path.
    """
    if _NOT_IN_A_URL.search(reference):
        raise ValueError("has a space, a backslash or a control character")
    if _SCHEME.match(reference):
        return reference
    if reference.startswith("//"):
        return f"{urlsplit(base).scheme}:{reference}"
    return urljoin(base, reference)


def public_url(text: str) -> str:
    """Return a URL for requests unchanged. Raises ValueError if it is invalid, or its literal address not allowed."""
    spelled = literal(read_url(text).host)
    if spelled is not None and not is_allowed(spelled, settings().JOBSVC_HTTP_ALLOW):
        raise ValueError(f"{spelled} is not a public address; JOBSVC_HTTP_ALLOW can let it in")
    return text


def literal(host: str) -> Address | None:
    """Return the address if the host is one, in any form that resolvers accept (0x7f.1, 2130706433); else None."""
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host.removesuffix(".")))
    except OSError:
        return None


def is_allowed(address: Address, allow: Sequence[Network]) -> bool:
    """Return True if the address is public, or in one of the networks `allow`."""
    reached: list[Address] = [*_embedded(address)] or [address]
    if any(form in network for form in (address, *reached) for network in allow):
        return True
    return all(map(_is_public, reached))


def _is_public(address: Address) -> bool:
    if address in _6TO4_RELAYS or (isinstance(address, IPv6Address) and address.is_site_local):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _embedded(address: Address) -> Iterator[IPv4Address]:
    """Yield the IPv4 addresses embedded in an IPv6 address."""
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
    """Return the checked addresses of the URL's host, in the resolver's order.

    Raises AddressRefused if any is not allowed, OSError if there is none.
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
