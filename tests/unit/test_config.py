"""Settings: read once, typed, refused with one line that names the variable and repeats no secret.

Ways in which a setting can be wrong: the scheme, the port (no number, out of range), the host (missing, two of
them, no address in brackets), the database (no number), options that the driver does not know or take, reserved
characters in a secret that are not escaped, spaces and control characters, bytes that are not UTF-8; numbers out
of range, infinite or no numbers; words, lists, names, networks, keys and secrets of the wrong form, and repeated
ones; and `.env`, which is a folder, not UTF-8, without permission, or holds a line that is no assignment.
"""

import hashlib
import os
import socket
from pathlib import Path

import pytest

from jobsvc.config import Settings, is_loopback, settings
from jobsvc.errors import ConfigError


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:p@h/d")
    monkeypatch.setenv("REDIS_URL", "redis://h/0")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_every_postgres_scheme_means_psycopg2(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://u:p@h/d")
    assert settings().DATABASE_URL == "postgresql+psycopg2://u:p@h/d"


def test_defaults_apply() -> None:
    assert settings().HOST == "127.0.0.1"
    assert settings().JOBSVC_QUEUES == ["high", "default", "low"]
    assert settings().JOBSVC_LEASE_SECONDS == 15
    assert settings().JOBSVC_SHUTDOWN_SECONDS == 25
    assert settings().is_open
    assert settings().default_queue == "default"


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "")
    assert settings().PORT == 3000


def test_lists_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBSVC_QUEUES", " fast , slow,")
    monkeypatch.setenv("JOBSVC_HTTP_ALLOW", "10.0.0.0/8,::1")
    assert settings().JOBSVC_QUEUES == ["fast", "slow"]
    assert settings().default_queue == "fast"
    assert [str(network) for network in settings().JOBSVC_HTTP_ALLOW] == ["10.0.0.0/8", "::1/128"]


def test_keys_are_parsed_with_their_scopes(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    monkeypatch.setenv("JOBSVC_API_KEYS", f"a:read:k:with:colons,b:admin:sha256:{digest.upper()}")
    first, second = settings().JOBSVC_API_KEYS
    assert first == ("a", "read", "k:with:colons")
    assert second.secret == f"sha256:{digest}"
    assert not settings().is_open


def test_webhook_secrets_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBSVC_WEBHOOK_SECRETS", f"whsec_{'A' * 32}, whsec_{'A' * 85}A==")
    assert [bytes(24), bytes(64)] == settings().JOBSVC_WEBHOOK_SECRETS
    assert "JOBSVC_WEBHOOK_SECRETS" not in repr(settings())


def test_dotenv_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("PORT=4000\nSOMETHING_ELSE=1\n")
    assert settings().PORT == 4000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://h/d"),
        ("DATABASE_URL", "h"),
        ("REDIS_URL", "h:6379"),
        ("PORT", "70000"),
        ("PORT", "0"),
        ("JOBSVC_API_KEYS", ","),
        ("PORT", "x"),
        ("JOBSVC_QUEUES", ","),
        ("JOBSVC_QUEUES", "a,a"),
        ("JOBSVC_NAMESPACE", "a.b"),
        ("JOBSVC_NAMESPACE", "_a"),
        ("JOBSVC_NAMESPACE", "a" * 33),
        ("JOBSVC_NAMESPACE", "é"),
        ("JOBSVC_NAMESPACE", "a\n"),
        ("JOBSVC_QUEUES", "no spaces"),
        ("JOBSVC_LEASE_SECONDS", "0"),
        ("JOBSVC_SWEEP_SECONDS", "nan"),
        ("JOBSVC_RETENTION_DAYS", "-1"),
        ("JOBSVC_API_KEYS", "onlyakey"),
        ("JOBSVC_API_KEYS", "a:root:k"),
        ("JOBSVC_API_KEYS", "a:read:"),
        ("JOBSVC_API_KEYS", "a:read:sha256:12"),
        ("JOBSVC_API_KEYS", "a:read:k,a:write:l"),
        ("JOBSVC_HTTP_ALLOW", "everything"),
        ("JOBSVC_ALLOW_ANONYMOUS", "perhaps"),
        ("HOST", "0.0.0.0"),
        ("JOBSVC_LOG", "xml"),
        ("JOBSVC_WEBHOOK_SECRETS", ","),
        ("JOBSVC_WEBHOOK_SECRETS", "A" * 32),
        ("JOBSVC_WEBHOOK_SECRETS", f"whsec_{'A' * 32},whsec_{'A' * 28}"),
        ("JOBSVC_WEBHOOK_SECRETS", f"whsec_{'A' * 88}"),
        ("JOBSVC_WEBHOOK_SECRETS", f"whsec_{'A' * 32}!"),
        ("JOBSVC_WEBHOOK_SECRETS", f"whsec_{'A' * 31}ä"),
    ],
)
def test_wrong_value_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        settings()
    assert str(caught.value).startswith(f"{name}: ")
    assert "\n" not in str(caught.value)
    assert "AAAA" not in str(caught.value)  # no secret


SECRET = "hunter2-Zq9"
ESCAPED = "p%40%2F%3F%23s"


def refused(name: str) -> str:
    """The line that refuses this variable's value."""
    with pytest.raises(ConfigError) as caught:
        settings()
    line = str(caught.value)
    assert line.startswith(f"{name}: ")
    assert line.isprintable()
    assert not [SECRET[i : i + 4] for i in range(len(SECRET) - 3) if SECRET[i : i + 4] in line]
    return line


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://u:{SECRET}@h/d",
        f"postgresql+asyncpg://u:{SECRET}@h/d",
        f"postgresql:u:{SECRET}@h/d",
        f"postgresql://u:{SECRET}@h:notaport/d",
        f"postgresql://u:{SECRET}@h:{SECRET}/d",
        f"postgresql://u:{SECRET}@h:65536/d",
        f"postgresql://u:{SECRET}@h:0/d",
        f"postgresql://u:{SECRET}@h:/d",
        f"postgresql://u:{SECRET}@[bad/x",
        f"postgresql://u:{SECRET}@[::zz]/x",
        f"postgresql://u:x@{SECRET}@h/d",
        f"postgresql://u:x/{SECRET}@h/d",
        f"postgresql://u:12/{SECRET}@h/d",
        f"postgresql://u:12?{SECRET}@h/d",
        f"postgresql://u:x#{SECRET}@h/d",
        f"postgresql://u/{SECRET}@h:5432/d",
        f"postgresql://u:{SECRET}@/d",
        f"postgresql://u:{SECRET}@:5432/d",
        "postgresql:///d",
        "postgresql://",
        f"postgresql://u:{SECRET}@h 2/d",
        f"postgresql://u:{SECRET}@h/d\n",
        f"postgresql://u:{SECRET}%00@h/d",
        f"postgresql://u:{SECRET}\udcff@h/d",
        f"postgresql://u:x@h/d?{SECRET}=1",
        f"postgresql://u:{SECRET}@h/d?nonsense=1",
        f"postgresql://u:{SECRET}@h/d?sslmode={SECRET}",
        f"postgresql://u:{SECRET}@h/d?connect_timeout={SECRET}",
        f"postgresql://u:{SECRET}@h/d?async=1",
        f" postgresql://u:{SECRET}@h/d",
    ],
)
def test_unusable_database_url_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    refused("DATABASE_URL")


@pytest.mark.parametrize(
    "url",
    [
        f"http://:{SECRET}@h/0",
        f"redis-sentinel://:{SECRET}@h/0",
        f"redis:{SECRET}",
        f"redis://:{SECRET}/pw@h:6379/0",
        f"redis://:12/{SECRET}@h:6379/0",
        f"redis://{SECRET}/x@h:6379/0",
        f"redis://:x#{SECRET}@h:6379/0",
        f"redis://u:12#{SECRET}@h",
        f"redis://u:12?{SECRET}@h",
        f"redis://:{SECRET}@h:{SECRET}/0",
        f"redis://:{SECRET}@h:99999/0",
        f"redis://:{SECRET}@h:0",
        f"redis://:{SECRET}@[bad:6379",
        f"redis://:{SECRET}@[{SECRET}]:6379",
        f"redis://:{SECRET}@",
        f"redis://:{SECRET}@:6379/0",
        "redis://",
        f"redis://:{SECRET}@h/{SECRET}",
        f"redis://:{SECRET}@h/-1",
        f"redis://:{SECRET}@h/0/1",
        f"redis://:{SECRET}@h?db={SECRET}",
        f"redis://:{SECRET}@h/0?{SECRET}=1",
        f"redis://:{SECRET}@h/0?socket_timeout={SECRET}",
        f"rediss://:{SECRET}@h/0?ssl_cert_reqs={SECRET}",
        f"redis://:{SECRET}@h/0\x1b[31m",
        f"redis://:{SECRET}\udcff@h/0",
        "unix://",
        f"unix://:{SECRET}",
        f"unix:///tmp/s?{SECRET}=1",
        f"unix:///tmp/s?db={SECRET}",
        f"redis+sentinel://:{SECRET}@h",
        f"redis+sentinel://:{SECRET}@h/",
        f"redis+sentinel://:{SECRET}@/service/0",
        f"redis+sentinel://:{SECRET}@h,,i/service/0",
        f"redis+sentinel://:{SECRET}@h,i:{SECRET}/service/0",
        f"redis+sentinel://:{SECRET}@h:99999/service",
        f"redis+sentinel://:{SECRET}@[bad,h/service",
        f"redis+sentinel://:{SECRET}/pw@h/service/0",
        f"redis+sentinel://:12?{SECRET}@h/service/0",
        f"redis+sentinel://:x#{SECRET}@h/service/0",
        f"redis+sentinel://:{SECRET}@h/service/{SECRET}",
        f"redis+sentinel://:{SECRET}@h/service/0/1",
        f"redis+sentinel://:{SECRET}@h/service?db={SECRET}",
        f"redis+sentinel://:{SECRET}@h/service/0?{SECRET}=1",
        f"redis+sentinel://:{SECRET}@h/service/0?sentinel_{SECRET}=1",
        f"redis+sentinel://:{SECRET}@h/service/0?sentinel_socket_timeout={SECRET}",
        f"rediss+sentinel://:{SECRET}@h/service/0?ssl_cert_reqs={SECRET}",
        f"redis+sentinel://:{SECRET}@h i/service/0",
    ],
)
def test_unusable_redis_url_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    refused("REDIS_URL")


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", f"postgresql://u:{ESCAPED}@[::1]:5432/d?sslmode=require&connect_timeout=3&options=-c%20x%3D1"),
        ("DATABASE_URL", "postgresql://u:pässword@my_db.internal/d"),
        ("DATABASE_URL", "postgresql://u@/d?host=/var/run/postgresql"),
        ("DATABASE_URL", "postgresql:///d?host=a:5432&host=b:5433&target_session_attrs=read-write"),
        ("DATABASE_URL", "postgresql:///?service=mine"),
        ("REDIS_URL", f"rediss://u:{ESCAPED}@[::1]:6380/15?socket_timeout=3&ssl_cert_reqs=none"),
        ("REDIS_URL", "redis://h"),
        ("REDIS_URL", "redis://h/"),
        ("REDIS_URL", "redis://:p@ss@h/0"),
        ("REDIS_URL", "unix:///tmp/redis.sock?db=2"),
        ("REDIS_URL", f"unix://u:{ESCAPED}@/tmp/redis.sock"),
        ("REDIS_URL", "redis+sentinel://h/service"),
        ("REDIS_URL", f"redis+sentinel://u:{ESCAPED}@h:1,[::1],i/my-service/3?sentinel_password={ESCAPED}"),
        ("REDIS_URL", "redis+sentinel://:p@ss@h,i:26380/service/0?socket_timeout=3&sentinel_socket_timeout=2"),
        ("REDIS_URL", "rediss+sentinel://h,i/service?ssl_cert_reqs=none&sentinel_username=watcher"),
    ],
)
def test_valid_urls_are_accepted(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    monkeypatch.setenv(name, url)
    assert getattr(settings(), name).partition("://")[2] == url.partition("://")[2]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JOBSVC_API_KEYS", SECRET),
        ("JOBSVC_API_KEYS", f"{SECRET}:root:{SECRET}"),
        ("JOBSVC_API_KEYS", f"{SECRET}:read:sha256:{SECRET}"),
        ("JOBSVC_API_KEYS", f"a:read:{SECRET},{SECRET}"),
        ("JOBSVC_API_KEYS", f"{SECRET}:read:{SECRET},{SECRET}:write:{SECRET}"),
        ("JOBSVC_API_KEYS", f"a:read:{SECRET}\udcff"),
        ("JOBSVC_API_KEYS", f"a:read:{SECRET}\x07"),
        ("JOBSVC_WEBHOOK_SECRETS", SECRET),
        ("JOBSVC_WEBHOOK_SECRETS", f"whsec_{SECRET}"),
        ("JOBSVC_HTTP_ALLOW", f"{SECRET}/8"),
        ("JOBSVC_HTTP_ALLOW", "10.0.0.0/33"),
        ("JOBSVC_HANDLERS", ","),
        ("JOBSVC_HANDLERS", ".mail"),
        ("JOBSVC_HANDLERS", "a..b"),
        ("JOBSVC_HANDLERS", "mail.py"),
        ("JOBSVC_HANDLERS", "./mail"),
        ("JOBSVC_HANDLERS", "mail\x1b[31m"),
        ("JOBSVC_QUEUES", "a\nb"),
        ("JOBSVC_LEASE_SECONDS", "inf"),
        ("JOBSVC_CONCURRENCY", "1.5"),
        ("JOBSVC_CONCURRENCY", "1001"),
        ("JOBSVC_WORKERS", "0"),
        ("JOBSVC_MAX_BODY_BYTES", "1e99"),
        ("JOBSVC_SHUTDOWN_SECONDS", "half a minute"),
        ("JOBSVC_LOG", "\udcff"),
        ("HOST", "10.1.2.3"),
        ("HOST", "::"),
        ("HOST", "no-such-host.invalid"),
        ("HOST", "localhost:3000"),
        ("HOST", "http://localhost"),
        ("HOST", "[::1"),
        ("HOST", "[localhost]"),
        ("HOST", "a b"),
        ("HOST", "*"),
        ("HOST", " "),
        ("HOST", "ä" * 70),
    ],
)
def test_wrong_setting_is_refused_without_its_secret(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    refused(name)


def test_repr_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:{SECRET}@h/d")
    monkeypatch.setenv("REDIS_URL", f"redis://:{SECRET}@h/0")
    monkeypatch.setenv("JOBSVC_API_KEYS", f"a:read:{SECRET}")
    assert SECRET not in repr(settings())


@pytest.mark.parametrize(
    ("host", "address", "url"),
    [
        ("127.0.0.1", "127.0.0.1", "http://localhost:3000"),
        ("localhost", "127.0.0.1", "http://localhost:3000"),
        ("LocalHost", "127.0.0.1", "http://localhost:3000"),
        ("127.9.9.9", "127.9.9.9", "http://127.9.9.9:3000"),
        ("::1", "::1", "http://[::1]:3000"),
        ("[::1]", "::1", "http://[::1]:3000"),
        ("0:0:0:0:0:0:0:1", "::1", "http://[::1]:3000"),
    ],
)
def test_loopback_host_is_resolved(monkeypatch: pytest.MonkeyPatch, host: str, address: str, url: str) -> None:
    monkeypatch.setenv("HOST", host)
    assert (settings().host_address, settings().address) == (address, url)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]"])
def test_wildcard_host_is_shown_as_localhost(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("HOST", host)
    monkeypatch.setenv("JOBSVC_ALLOW_ANONYMOUS", "1")
    assert settings().host_address == host.strip("[]")
    assert settings().address == "http://localhost:3000"


def test_resolved_host_name_decides_whether_keys_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the address of this machine's own name."""
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        pytest.skip("this machine's name has no address")
    monkeypatch.setenv("HOST", name)
    if is_loopback(address):
        assert settings().host_address == address
    else:
        assert "can be reached from other machines" in refused("HOST")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "Is a directory"),
        (b"PORT=3000\nHOST=\xff\n", "is not UTF-8"),
        (b"PORT=3000\n=x\n", "line 2"),
        (f"PORT 3000\nREDIS_URL='{SECRET}\n".encode(), "line 1"),
    ],
)
def test_unreadable_dotenv_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is None:
        Path(".env").mkdir()
    else:
        Path(".env").write_bytes(content)
    assert says in refused(".env")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_dotenv_without_permission_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("PORT=4000\n")
    Path(".env").chmod(0)
    assert "Permission denied" in refused(".env")


def test_dotenv_may_have_a_byte_order_mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_bytes(b"\xef\xbb\xbfPORT=4000\n")
    assert settings().PORT == 4000


def test_missing_url_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    with pytest.raises(ConfigError, match=r"^DATABASE_URL: is not set$"):
        settings()


def test_public_host_needs_keys_or_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "0.0.0.0")
    monkeypatch.setenv("JOBSVC_ALLOW_ANONYMOUS", "1")
    assert settings().HOST == "0.0.0.0"
    settings.cache_clear()
    monkeypatch.delenv("JOBSVC_ALLOW_ANONYMOUS")
    monkeypatch.setenv("JOBSVC_API_KEYS", "a:read:k")
    assert settings().HOST == "0.0.0.0"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("x", False),
        ("", False),
    ],
)
def test_loopback_addresses_are_recognized(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
