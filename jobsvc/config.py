"""The settings: read once from the environment and `.env`, typed and validated at start."""

from base64 import b64decode
from functools import cached_property, lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, cast

from dotenv.parser import parse_stream
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jobsvc.errors import ConfigError
from jobsvc.printable import one_line
from jobsvc.servers.listening import is_loopback, resolve, url_of
from jobsvc.servers.urls import check_database_url, check_redis_url

__all__ = ["ApiKey", "Network", "Scope", "Settings", "check", "is_loopback", "settings"]

Network = IPv4Network | IPv6Network
Scope = Literal["read", "write", "admin"]
T = TypeVar("T")


class ApiKey(NamedTuple):
    """A client of the API. `secret` is the key itself, or `sha256:<hex>` of it."""

    name: str
    scope: Scope
    secret: str


def _split(value: Any) -> Any:
    """Split a comma-separated setting into its non-empty parts."""
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts:
        raise ValueError("is empty: give at least one value, or don't set it")
    return parts


def _api_key(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    name, _, rest = value.partition(":")
    scope, _, secret = rest.partition(":")
    if not (name and secret and scope in ("read", "write", "admin")):
        raise ValueError("write each key as name:scope:key, the scope being read, write or admin")
    if secret.startswith("sha256:"):
        digest = secret.removeprefix("sha256:").lower()
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise ValueError("write the sha256 of a key with 64 hexadecimal digits")
        secret = f"sha256:{digest}"
    if not value.isprintable():
        raise ValueError("a name or key has a control character or bytes that are not UTF-8")
    return ApiKey(name, cast(Scope, scope), secret)


def _webhook_secret(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        key = b64decode(value.removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not value.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("write each secret as whsec_ and the base64 of 24 to 64 random bytes")
    return key


def _network(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return ip_network(value, strict=False)
    except ValueError:
        raise ValueError("write each network as an address, or with the length of its prefix: 10.0.0.0/8") from None


def _module(value: Any) -> Any:
    if isinstance(value, str) and (value.endswith(".py") or not all(map(str.isidentifier, value.split(".")))):
        raise ValueError("write each module as Python imports it, such as package.module, without / and .py")
    return value


CommaSeparated = Annotated[list[T], NoDecode, BeforeValidator(_split)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""Pattern of the name of a queue or a schedule."""

NAMESPACE = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$"
"""Pattern of JOBSVC_NAMESPACE: without a dot, which separates it from the name in RQ's queue names."""

QueueName = Annotated[str, Field(pattern=NAME)]


DOTENV = ".env"
ENCODING = "utf-8-sig"
"""Encoding of `.env`: UTF-8, with or without the byte order mark that some Windows editors write."""


class Settings(BaseSettings):
    """Every setting, by the name of its environment variable. Durations are seconds."""

    model_config = SettingsConfigDict(
        env_file=DOTENV,
        env_file_encoding=ENCODING,
        env_ignore_empty=True,
        extra="ignore",
        case_sensitive=True,
        frozen=True,
    )

    DATABASE_URL: str = Field(repr=False)
    REDIS_URL: str = Field(repr=False)
    HOST: str = "127.0.0.1"
    PORT: int = Field(3000, ge=1, le=65535)
    JOBSVC_HANDLERS: CommaSeparated[Annotated[str, BeforeValidator(_module)]] = []
    JOBSVC_QUEUES: CommaSeparated[QueueName] = Field(["high", "default", "low"], min_length=1)
    JOBSVC_CONCURRENCY: int = Field(1, ge=1, le=1000)
    JOBSVC_WORKERS: int = Field(2, ge=1, le=512)
    JOBSVC_LEASE_SECONDS: float = Field(15, ge=1, le=3600)
    JOBSVC_SWEEP_SECONDS: float = Field(2, gt=0, le=60)
    JOBSVC_SHUTDOWN_SECONDS: float = Field(25, ge=0, le=3600)
    JOBSVC_RETENTION_DAYS: float = Field(30, ge=0, le=36500)
    JOBSVC_MAX_BODY_BYTES: int = Field(1024 * 1024, ge=1024, le=256 * 1024 * 1024)
    JOBSVC_DB_CONNECTIONS: int = Field(10, ge=2, le=1000)
    JOBSVC_LOG: Literal["text", "json"] = "text"
    JOBSVC_UI: Literal["on", "off"] = "on"
    JOBSVC_API_KEYS: CommaSeparated[Annotated[ApiKey, BeforeValidator(_api_key)]] = Field([], repr=False)
    JOBSVC_ALLOW_ANONYMOUS: bool = False
    JOBSVC_TRUST_PROXY: int = Field(0, ge=0, le=1)
    JOBSVC_NAMESPACE: Annotated[str, Field(pattern=NAMESPACE)] = "jobsvc"
    JOBSVC_WEBHOOK_SECRETS: CommaSeparated[Annotated[bytes, BeforeValidator(_webhook_secret)]] = Field([], repr=False)
    JOBSVC_HTTP_ALLOW: CommaSeparated[Annotated[Network, BeforeValidator(_network)]] = []

    @field_validator("DATABASE_URL")
    @classmethod
    def _postgres(cls, url: str) -> str:
        return check_database_url(url)

    @field_validator("REDIS_URL")
    @classmethod
    def _redis(cls, url: str) -> str:
        return check_redis_url(url)

    @field_validator("HOST")
    @classmethod
    def _host(cls, host: str) -> str:
        resolve(host)
        return host

    @field_validator("JOBSVC_QUEUES", "JOBSVC_API_KEYS")
    @classmethod
    def _no_name_twice(cls, values: list[Any]) -> list[Any]:
        names = [value.name if isinstance(value, ApiKey) else value for value in values]
        if len(set(names)) < len(names):
            raise ValueError("a name appears more than once")
        return values

    @model_validator(mode="after")
    def _open_on_loopback_only(self) -> "Settings":
        if not self.is_open or self.JOBSVC_ALLOW_ANONYMOUS or is_loopback(self.host_address):
            return self
        raise ValueError(
            f"HOST: {self.HOST} can be reached from other machines: set JOBSVC_API_KEYS, "
            "or JOBSVC_ALLOW_ANONYMOUS=1 to let anyone in"
        )

    @model_validator(mode="after")
    def _trusted_proxy_only_with_keys(self) -> "Settings":
        if not self.JOBSVC_TRUST_PROXY or not self.is_open or self.JOBSVC_ALLOW_ANONYMOUS:
            return self
        raise ValueError(
            "JOBSVC_TRUST_PROXY: needs JOBSVC_API_KEYS, or JOBSVC_ALLOW_ANONYMOUS=1 to let anyone in, "
            "since the proxy serves other machines"
        )

    @cached_property
    def host_address(self) -> str:
        """The address of HOST, on which the API listens."""
        return resolve(self.HOST)

    @property
    def address(self) -> str:
        """The URL of the API, for users."""
        return url_of(self.host_address, self.PORT)

    @property
    def is_open(self) -> bool:
        """True if requests need no key."""
        return not self.JOBSVC_API_KEYS

    @property
    def default_queue(self) -> str:
        """The queue of jobs whose handler names none."""
        return "default" if "default" in self.JOBSVC_QUEUES else self.JOBSVC_QUEUES[0]


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the settings of this process. Raises as `check` does."""
    return check()


def check(**placeholders: str) -> Settings:
    """Read all settings; `placeholders` replace variables that are not known yet.

    Raises ConfigError if one is missing or wrong: one line that names the variable and repeats no secret.
    """
    _check_dotenv()
    try:
        return Settings(**placeholders)  # type: ignore[arg-type]  # the environment brings the others
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        what = "is not set" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
        raise ConfigError(one_line(f"{first['loc'][0]}: {what}" if first["loc"] else what)) from None


def _check_dotenv() -> None:
    """Raise ConfigError if `.env` exists but can't be read; python-dotenv would silently ignore all or part of it."""
    path = Path(DOTENV)
    try:
        if not path.exists():
            return
        with path.open(encoding=ENCODING) as file:
            wrong = [one.original.line for one in parse_stream(file) if one.error]
    except UnicodeDecodeError:
        raise ConfigError(".env: is not UTF-8") from None
    except OSError as error:
        raise ConfigError(f".env: can't be read: {error.strerror}; it must be a file of lines NAME=value") from None
    if wrong:
        raise ConfigError(f".env: line {wrong[0]} can't be read: write each line as NAME=value")
