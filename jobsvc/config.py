"""The settings: read once from the environment and `.env`, typed, refused at start when wrong."""

from base64 import b64decode
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, cast

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jobsvc.errors import ConfigError

Network = IPv4Network | IPv6Network
Scope = Literal["read", "write", "admin"]
T = TypeVar("T")


class ApiKey(NamedTuple):
    """Somebody who may call the API. `secret` is the key itself, or `sha256:<hex>` of it."""

    name: str
    scope: Scope
    secret: str


def _split(value: Any) -> Any:
    """A comma-separated setting as a list of its non-empty parts."""
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if not parts:
        raise ValueError("names nothing")
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
            raise ValueError(f"the sha256 of key {name!r} must have 64 hexadecimal digits")
        secret = f"sha256:{digest}"
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
    return ip_network(value, strict=False) if isinstance(value, str) else value


CommaSeparated = Annotated[list[T], NoDecode, BeforeValidator(_split)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""What the name of a queue or a schedule looks like."""

QueueName = Annotated[str, Field(pattern=NAME)]


class Settings(BaseSettings):
    """Every setting, by the name of its environment variable. Durations are seconds."""

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", case_sensitive=True, frozen=True
    )

    DATABASE_URL: str
    REDIS_URL: str
    HOST: str = "127.0.0.1"
    PORT: int = Field(3000, ge=1, le=65535)
    JOBSVC_HANDLERS: CommaSeparated[str] = []
    JOBSVC_QUEUES: CommaSeparated[QueueName] = Field(["high", "default", "low"], min_length=1)
    JOBSVC_CONCURRENCY: int = Field(1, ge=1, le=128)
    JOBSVC_WORKERS: int = Field(2, ge=1, le=512)
    JOBSVC_LEASE_SECONDS: float = Field(15, ge=1, le=3600)
    JOBSVC_SWEEP_SECONDS: float = Field(2, gt=0, le=60)
    JOBSVC_SHUTDOWN_SECONDS: float = Field(25, ge=0, le=3600)
    JOBSVC_RETENTION_DAYS: float = Field(30, ge=0, le=36500)
    JOBSVC_MAX_BODY_BYTES: int = Field(1024 * 1024, ge=1024, le=256 * 1024 * 1024)
    JOBSVC_LOG: Literal["text", "json"] = "text"
    JOBSVC_API_KEYS: CommaSeparated[Annotated[ApiKey, BeforeValidator(_api_key)]] = []
    JOBSVC_ALLOW_ANONYMOUS: bool = False
    JOBSVC_WEBHOOK_SECRETS: CommaSeparated[Annotated[bytes, BeforeValidator(_webhook_secret)]] = Field([], repr=False)
    JOBSVC_HTTP_ALLOW: CommaSeparated[Annotated[Network, BeforeValidator(_network)]] = []

    @field_validator("DATABASE_URL")
    @classmethod
    def _psycopg2(cls, url: str) -> str:
        # SQLAlchemy 2.1 takes a bare postgresql:// to mean psycopg 3.
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in ("postgres", "postgresql", "postgresql+psycopg2"):
            raise ValueError("write it as postgresql://user:password@host:port/database")
        return f"postgresql+psycopg2://{rest}"

    @field_validator("REDIS_URL")
    @classmethod
    def _redis_scheme(cls, url: str) -> str:
        if not url.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("write it as redis://user:password@host:port/0")
        return url

    @field_validator("JOBSVC_QUEUES", "JOBSVC_API_KEYS")
    @classmethod
    def _no_name_twice(cls, values: list[Any]) -> list[Any]:
        names = [value.name if isinstance(value, ApiKey) else value for value in values]
        if len(set(names)) < len(names):
            raise ValueError("a name appears more than once")
        return values

    @model_validator(mode="after")
    def _open_on_loopback_only(self) -> "Settings":
        if not self.is_open or self.JOBSVC_ALLOW_ANONYMOUS or is_loopback(self.HOST):
            return self
        raise ValueError(
            f"HOST: {self.HOST} can be reached from other machines: set JOBSVC_API_KEYS, "
            "or JOBSVC_ALLOW_ANONYMOUS=1 to let anyone in"
        )

    @property
    def address(self) -> str:
        """Where people find the API."""
        return f"http://{'localhost' if self.HOST == '127.0.0.1' else self.HOST}:{self.PORT}"

    @property
    def is_open(self) -> bool:
        """Whether requests need no key."""
        return not self.JOBSVC_API_KEYS

    @property
    def default_queue(self) -> str:
        """Where a job goes whose handler names no queue."""
        return "default" if "default" in self.JOBSVC_QUEUES else self.JOBSVC_QUEUES[0]


def is_loopback(host: str) -> bool:
    """Whether this host, a name or an address, is this machine's own loopback."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process.

    Raises ConfigError, one line that names the variable, when one is missing or wrong.
    """
    try:
        return Settings()  # type: ignore[call-arg]  # the environment brings the required ones
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise ConfigError(first["msg"].removeprefix("Value error, ")) from None
        if first["type"] == "missing":
            raise ConfigError(f"{first['loc'][0]}: is not set") from None
        raise ConfigError(f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}") from None
