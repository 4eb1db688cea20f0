"""Connect to Redis by its URL: directly, or to the master that Redis Sentinel names.

RQ recreates connections from a pool's connection class and arguments in each process that it forks. So our
connections find the master themselves; the pool of `redis.sentinel` would be lost there.
"""

from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionPool, SSLConnection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
"""URL schemes, each with the scheme of connections to the master. With TLS, connections to sentinels use it, too."""

PORT = 26379
"""Sentinel's default port."""

TIMEOUT_SECONDS = 1.0
"""Timeout for connecting to a sentinel, and for its reply, before the next one is asked."""

PREFIX = "sentinel_"
"""Prefix of URL options for the connections to the sentinels, such as `sentinel_password`."""

Address = tuple[str, int]


class Watched(NamedTuple):
    """A master watched by sentinels, as its URL describes it."""

    addresses: list[Address]
    service: str
    options: dict[str, Any]
    """redis-py's options for the connection to the master."""
    sentinel_options: dict[str, Any]


def is_sentinel(url: str) -> bool:
    """Return True if the URL names sentinels."""
    return url.partition("://")[0] in SCHEMES


def parse(url: str) -> Watched:
    """Parse a URL that `urls` has checked."""
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    service, _, database = path.partition("/")
    given = parse_qsl(query, keep_blank_values=True)
    own = [(name, value) for name, value in given if not name.startswith(PREFIX)]
    theirs = [(name.removeprefix(PREFIX), value) for name, value in given if name.startswith(PREFIX)]
    if SCHEMES[scheme] == "rediss":  # one CA, or certificate, unless the sentinels have their own
        theirs = [pair for pair in own if pair[0].startswith("ssl_")] + theirs
    form = f"{SCHEMES[scheme]}://{{}}h/{{}}?{{}}"
    options = parse_url(form.format(user + at, database.rstrip("/"), urlencode(own)))  # type: ignore[no-untyped-call]
    sentinel_options = parse_url(form.format("", "", urlencode(dict(theirs))))  # type: ignore[no-untyped-call]
    for one in (options, sentinel_options):
        del one["host"]
    return Watched([_address(host) for host in hosts.split(",")], unquote(service), options, sentinel_options)


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":") if not text.endswith("]") and ":" in text else (text, "", "")
    return host.removeprefix("[").removesuffix("]"), int(port or PORT)


def connect(url: str, **options: Any) -> Redis:
    """Return a client of this Redis with its own pool; `options` are those of `Redis.from_url`."""
    if not is_sentinel(url):
        return Redis.from_url(url, **options)
    # As in from_url, the URL's options take precedence.
    return Redis.from_pool(ConnectionPool(**{**options, **connection_arguments(parse(url))}))


def make_connections(url: str) -> None:
    """Create, but don't open, the connections of a URL. Raises redis-py's errors for invalid options."""
    watched = parse(url)
    ConnectionPool(**connection_arguments(watched)).make_connection()
    ConnectionPool(**watched.sentinel_options).make_connection()


def connection_arguments(watched: Watched) -> dict[str, Any]:
    """Return the arguments of a pool whose connections find the master."""
    is_tls = watched.options.get("connection_class") is SSLConnection
    return {
        **watched.options,
        "connection_class": TlsMasterConnection if is_tls else MasterConnection,
        "addresses": watched.addresses,
        "service": watched.service,
        "sentinel_options": watched.sentinel_options,
    }


def rq_settings(url: str) -> dict[str, Any]:
    """Return the value of SENTINEL in the settings file of RQ's commands (rq/cli/helpers.py)."""
    watched = parse(url)
    arguments = connection_arguments(watched)
    return {
        "INSTANCES": watched.addresses,
        "MASTER_NAME": watched.service,
        "DB": arguments.pop("db", 0),
        "USERNAME": arguments.pop("username", None),
        "PASSWORD": arguments.pop("password", None),
        "SOCKET_TIMEOUT": arguments.pop("socket_timeout", None),
        "CONNECTION_KWARGS": arguments,
    }


class MasterConnection(Connection):
    """A connection that asks the sentinels for the master at each connect."""

    def __init__(
        self,
        *,
        addresses: list[Address],
        service: str,
        sentinel_options: dict[str, Any],
        connection_pool: object = None,  # passed by redis-py's pool for sentinels; not used here
        **arguments: Any,
    ) -> None:
        self._addresses, self._service, self._sentinel_options = addresses, service, sentinel_options
        super().__init__(**arguments)  # type: ignore[no-untyped-call]

    def _connect(self) -> Any:
        self.host, self.port = find_master(self._addresses, self._service, self._sentinel_options)
        return super()._connect()  # type: ignore[no-untyped-call]

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """Close the connection if the server is no longer the master, so that the next try finds the new one."""
        try:
            return super().read_response(*args, **kwargs)
        except ReadOnlyError:
            self.disconnect()  # type: ignore[no-untyped-call]
            raise RedisConnectionError("the master of before is a replica now") from None


class TlsMasterConnection(MasterConnection, SSLConnection):
    """A MasterConnection with TLS."""


def find_master(addresses: list[Address], service: str, options: dict[str, Any]) -> Address:
    """Return the address of the master. Raises MasterNotFoundError with the answer of each sentinel.

    Moves the sentinel that answered to the front of `addresses`, so that one that is down is not asked each time.
    """
    reasons = []
    for address in tuple(addresses):
        try:
            state = _ask(address, service, options)
        except (RedisError, OSError) as error:
            reasons.append(f"{_shown(address)} {error}")
            continue
        if not state["is_master"] or state["is_sdown"] or state["is_odown"]:
            reasons.append(f"{_shown(address)} sees it down")
            continue
        if addresses[0] != address:
            addresses.sort(key=lambda one: one != address)
        return str(state["ip"]), int(state["port"])
    raise MasterNotFoundError(f"no sentinel names a master of {service!r}: {'; '.join(reasons)}")


def _ask(address: Address, service: str, options: dict[str, Any]) -> dict[str, Any]:
    arguments = {
        "host": address[0],
        "port": address[1],
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "socket_timeout": TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        **options,
    }
    with Redis.from_pool(ConnectionPool(**arguments)) as sentinel:
        return dict(sentinel.sentinel_master(service))


def _shown(address: Address) -> str:
    return f"{address[0]}:{address[1]}"
