"""The guard of outgoing requests: which addresses may be connected to, and as what a URL is read.

Names are resolved here and the addresses checked here, and the caller connects to exactly those,
so that no second look-up can answer otherwise.
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
"""Characters of a host name, its last dot included (RFC 1035 §3.1)."""

_PORTS = {"http": 80, "https": 443}
_NOT_IN_A_URL = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_HOST_AND_PORT = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
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
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def read_url(text: str) -> Url:
    """Read an absolute http(s) URL. Raises ValueError with what is wrong with it."""
    if _NOT_IN_A_URL.search(text):
        raise ValueError("has a space, a backslash or a control character")
    try:
        parts = urlsplit(text)
    except ValueError:  # brackets without an IPv6 address, or a host of odd characters
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
    """The port; the scheme's own only where none is named (urllib3/urllib3#5071)."""
    found = _HOST_AND_PORT.fullmatch(parts.netloc)
    if found and found[1] is None:
        return _PORTS[parts.scheme]
    if not found or not 1 <= int(found[1]) <= 65535:
        raise ValueError("has no valid port; ports go from 1 to 65535")
    return int(found[1])


def join(base: str, reference: str) -> str:
    """The URL that a redirect from `base` names (RFC 3986 §5). Raises ValueError for what can't be one.

    A reference with a scheme or two slashes stands for itself; urljoin would take `http:///x` as a path.
    """
    if _NOT_IN_A_URL.search(reference):
        raise ValueError("has a space, a backslash or a control character")
    if _SCHEME.match(reference):
        return reference
    if reference.startswith("//"):
        return f"{urlsplit(base).scheme}:{reference}"
    return urljoin(base, reference)


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
