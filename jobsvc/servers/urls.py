"""Check the URLs of Postgres and Redis at start, by their drivers' own rules.

No error message repeats any part of a URL: if a password has an unescaped reserved character,
any part of the URL may contain a piece of it.
"""

import os
import re
import unicodedata
from ipaddress import IPv6Address
from urllib.parse import parse_qsl, unquote

from jobsvc.servers import sentinel

POSTGRES = "postgresql://user:password@host:port/database"
REDIS = "redis://user:password@host:port/0"
SENTINEL = "redis+sentinel://user:password@host:port,host:port/service/0"

# RFC 3986, section 3.2: the authority ends at the first of these characters.
_AUTHORITY = re.compile(r"[^/?#]*")
_HOST_AND_PORT = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<name>[\w.-]*))(?P<port>:[0-9]+)?", re.ASCII)

# libpq checks these only when it connects; a wrong one would then be taken for an outage.
_LIBPQ_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "load_balance_hosts": ("disable", "random"),
}
_LIBPQ_NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)


def check_database_url(url: str) -> str:
    """Return the URL with the scheme that SQLAlchemy needs for psycopg2. Raises ValueError."""
    scheme, separator, rest = url.partition("://")
    # SQLAlchemy 2.1 uses psycopg 3 for a plain postgresql://.
    if not separator or scheme not in ("postgres", "postgresql", "postgresql+psycopg2"):
        raise ValueError(f"write it as {POSTGRES}")
    host, tail = _check_authority(url, rest, POSTGRES)
    if "@" in tail or "#" in tail or rest.count("@") > 1:
        raise ValueError(_malformed(POSTGRES))
    options = parse_qsl(tail.partition("?")[2], keep_blank_values=True)
    elsewhere = any(name in ("host", "hostaddr", "service") and value for name, value in options)
    if not (host or elsewhere or any(os.environ.get(name) for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE"))):
        raise ValueError(f"the host is missing: write it as {POSTGRES}, or with ?host=/folder for a Unix socket")
    for name, value in options:
        if name in _LIBPQ_CHOICES and value not in _LIBPQ_CHOICES[name]:
            raise ValueError(f"its option {name} must be one of {', '.join(_LIBPQ_CHOICES[name])}")
        if name in _LIBPQ_NUMBERS and not re.fullmatch(r"-?[0-9]{1,9}", value):
            raise ValueError(f"its option {name} must be a whole number")
    normalised = f"postgresql+psycopg2://{rest}"
    if not _is_known_to_psycopg2(normalised):
        raise ValueError("it has an option that libpq does not know")
    return normalised


def _is_known_to_psycopg2(url: str) -> bool:
    from psycopg2.extensions import make_dsn
    from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
    from sqlalchemy.engine import make_url

    try:
        _, arguments = PGDialect_psycopg2().create_connect_args(make_url(url))  # type: ignore[no-untyped-call]
        make_dsn(**arguments)
    except Exception:  # its text may contain parts of the URL
        return False
    return True


def check_redis_url(url: str) -> str:
    """Return the URL if redis-py accepts it. Raises ValueError."""
    scheme, separator, rest = url.partition("://")
    if separator and scheme in sentinel.SCHEMES:
        return _check_sentinel_url(url, rest)
    if not separator or scheme not in ("redis", "rediss", "unix"):
        raise ValueError(
            f"write it as {REDIS}, rediss:// for TLS, unix:///path/to/socket?db=0, or {SENTINEL} for Redis Sentinel"
        )
    if scheme == "unix":
        if (not rest.startswith("/") and "@/" not in rest) or "#" in rest:
            raise ValueError("write it as unix:///path/to/socket?db=0")
        _check_characters(url, "unix:///path/to/socket?db=0")
        path, _, query = rest.partition("?")
    else:
        host, tail = _check_authority(url, rest, REDIS)
        path, _, query = tail.partition("?")
        if "#" in tail or "@" in tail:
            raise ValueError(_malformed(REDIS))
        if not host and "host" not in dict(parse_qsl(query)):
            raise ValueError(f"the host is missing: write it as {REDIS}")
        if not re.fullmatch(r"/?|/[0-9]{1,9}/?", path):
            raise ValueError(f"the database must be a number such as 0: write it as {REDIS}")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not re.fullmatch(r"[0-9]{1,9}", options.get("db", "0")):
        raise ValueError("its option db must be a number such as 0")
    if not _is_known_to_redis(url):
        raise ValueError("it has an option that redis-py does not know, or a value that it does not take")
    return url


def _check_sentinel_url(url: str, rest: str) -> str:
    _check_characters(url, SENTINEL)
    place, _, query = rest.partition("?")
    authority, _, path = place.partition("/")
    hosts = authority.rpartition("@")[2].split(",")
    if "@" in path or "@" in query or "#" in rest:
        raise ValueError(_malformed(SENTINEL))
    for host in hosts:
        name, _ = _check_authority(url, host, SENTINEL)
        if not name:
            raise ValueError(f"the host of a sentinel is missing: write it as {SENTINEL}")
    if not re.fullmatch(r"[\w.-]+(/[0-9]{0,9})?/?", path, re.ASCII):
        raise ValueError(
            f"after the hosts comes the name of the service, then a database number: write it as {SENTINEL}"
        )
    if not re.fullmatch(r"[0-9]{1,9}", dict(parse_qsl(query, keep_blank_values=True)).get("db", "0")):
        raise ValueError("its option db must be a number such as 0")
    try:
        sentinel.make_connections(url)  # connects to nothing yet
    except Exception:  # its text may contain parts of the URL
        raise ValueError("it has an option that redis-py does not know, or a value that it does not take") from None
    return url


def _is_known_to_redis(url: str) -> bool:
    from redis.connection import ConnectionPool

    try:
        ConnectionPool.from_url(url).make_connection()  # connects to nothing yet
    except Exception:  # its text may contain parts of the URL
        return False
    return True


def _check_authority(url: str, rest: str, form: str) -> tuple[str, str]:
    """Check the part between `://` and the path; returns the host, empty if there is none, and the rest."""
    _check_characters(url, form)
    found = _AUTHORITY.match(rest)
    authority = found[0] if found else ""
    place = _HOST_AND_PORT.fullmatch(authority.rpartition("@")[2])
    if place is None:
        raise ValueError(_malformed(form))
    if (place["port"] and not 1 <= int(place["port"][1:6]) <= 65535) or len(place["port"] or "") > 6:
        raise ValueError(f"the port must be a number from 1 to 65535: write it as {form}")
    if place["ipv6"] is not None:
        try:
            IPv6Address(unquote(place["ipv6"]))
        except ValueError:
            raise ValueError(f"the address in brackets is no IPv6 address: write it as {form}") from None
    return place["ipv6"] or place["name"] or "", rest[len(authority) :]


def _check_characters(url: str, form: str) -> None:
    if "%00" in url or any(one.isspace() or unicodedata.category(one) in ("Cc", "Cs") for one in url):
        raise ValueError(f"it has a space or control character: write it as {form}, such characters as %20")


def _malformed(form: str) -> str:
    return (
        f"it can't be read: write it as {form}, the port a number, "
        "and reserved characters of the user and password as %40 for @, %2F for /, %3F for ?, %23 for #"
    )
