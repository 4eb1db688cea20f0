"""The API's listening socket: resolves HOST, and checks and opens the port."""

import errno
import os
import socket
from ipaddress import IPv6Address, ip_address

from jobsvc.errors import ConfigError

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104  # compared with, not bound


def resolve(host: str) -> str:
    """Resolve a host name or address to an address, preferring IPv4.

    IPv6 addresses may be in brackets. Raises ValueError.
    """
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if name != host or ":" in name:
        try:
            return str(IPv6Address(name))
        except ValueError:
            raise ValueError("write a host name or an address without a port, such as localhost or ::1") from None
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, ValueError):  # ValueError: an invalid name, such as one with a NUL
        raise ValueError(
            "this name can't be resolved: write a host name or an address without a port, such as localhost or ::1"
        ) from None
    addresses = [str(one[4][0]) for one in found]
    return next((one for one in addresses if ":" not in one), addresses[0])


def is_loopback(host: str) -> bool:
    """Return True if this host, a name or an address as in a URL, is the loopback of this machine.

    Names are compared case-insensitively (RFC 9110 §4.2.3) and without the final dot of an absolute name.
    """
    name = host.strip("[]").removesuffix(".").lower()
    if name == "localhost":
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def url_of(address: str, port: int) -> str:
    """Return a URL for a browser, of a server that listens on this address."""
    if address in WILDCARDS or address == "127.0.0.1":
        return f"http://localhost:{port}"
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def check_port(address: str, port: int) -> None:
    """Raise ConfigError unless a server can listen on this address and port now."""
    listen(address, port).close()


def listen(address: str, port: int, backlog: int | None = None) -> socket.socket:
    """Return a socket that listens on this address and port. Raises ConfigError."""
    # Not left to the servers: granian would share the port with its current owner, or retry for ever.
    try:
        return socket.create_server(
            (address, port),
            family=socket.AF_INET6 if ":" in address else socket.AF_INET,
            backlog=backlog,
            dualstack_ipv6=address == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise ConfigError(_why(error, address, port)) from None


def _why(error: OSError, address: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"PORT: {port} is taken on {address}: stop the program that has it, or set another PORT"
        case errno.EACCES | errno.EPERM:
            return f"PORT: {port} needs rights that this user does not have: set a PORT of 1024 or above"
        case _:
            return f"HOST: {address} is not an address of this machine ({os.strerror(error.errno or 0)})"
