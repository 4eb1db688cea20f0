"""Settings: read once, typed, refused with one line."""

import hashlib

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
def test_every_spelling_of_postgres_means_psycopg2(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://u:p@h/d")
    assert settings().DATABASE_URL == "postgresql+psycopg2://u:p@h/d"


def test_defaults() -> None:
    assert settings().HOST == "127.0.0.1"
    assert settings().JOBSVC_QUEUES == ["high", "default", "low"]
    assert settings().JOBSVC_LEASE_SECONDS == 15
    assert settings().JOBSVC_SHUTDOWN_SECONDS == 25
    assert settings().is_open
    assert settings().default_queue == "default"


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "")
    assert settings().PORT == 3000


def test_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBSVC_QUEUES", " fast , slow,")
    monkeypatch.setenv("JOBSVC_HTTP_ALLOW", "10.0.0.0/8,::1")
    assert settings().JOBSVC_QUEUES == ["fast", "slow"]
    assert settings().default_queue == "fast"
    assert [str(network) for network in settings().JOBSVC_HTTP_ALLOW] == ["10.0.0.0/8", "::1/128"]


def test_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    monkeypatch.setenv("JOBSVC_API_KEYS", f"a:read:k:with:colons,b:admin:sha256:{digest.upper()}")
    first, second = settings().JOBSVC_API_KEYS
    assert first == ("a", "read", "k:with:colons")
    assert second.secret == f"sha256:{digest}"
    assert not settings().is_open


def test_webhook_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBSVC_WEBHOOK_SECRETS", f"whsec_{'A' * 32}, whsec_{'A' * 85}A==")
    assert [bytes(24), bytes(64)] == settings().JOBSVC_WEBHOOK_SECRETS
    assert "JOBSVC_WEBHOOK_SECRETS" not in repr(settings())


def test_dotenv(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
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
def test_a_wrong_value_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        settings()
    assert str(caught.value).startswith(f"{name}: ")
    assert "\n" not in str(caught.value)
    assert "AAAA" not in str(caught.value)  # no secret


def test_a_missing_url_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    with pytest.raises(ConfigError, match=r"^DATABASE_URL: is not set$"):
        settings()


def test_other_machines_need_keys_or_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOST", "0.0.0.0")
    monkeypatch.setenv("JOBSVC_ALLOW_ANONYMOUS", "1")
    assert settings().HOST == "0.0.0.0"
    settings.cache_clear()
    monkeypatch.delenv("JOBSVC_ALLOW_ANONYMOUS")
    monkeypatch.setenv("JOBSVC_API_KEYS", "a:read:k")
    assert settings().HOST == "0.0.0.0"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", False), ("x", False)],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
