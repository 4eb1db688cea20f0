"""The client's address, and how many wrong keys it sent."""

from types import SimpleNamespace

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix

from jobsvc.api import clients
from jobsvc.api.clients import WrongKeys, client_address, network_of


@pytest.fixture(params=[0, 1])
def trust(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(clients, "settings", lambda: SimpleNamespace(JOBSVC_TRUST_PROXY=request.param))
    return int(request.param)


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("203.0.113.9, 198.51.100.7", "198.51.100.7"),
        ("127.0.0.1,198.51.100.7:4711", "198.51.100.7"),
        ("[2001:DB8::0:1]:4711", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("unknown", "127.0.0.1"),
        ("198.51.100.7,", "127.0.0.1"),
        ("", "127.0.0.1"),
    ],
)
def test_last_forwarded_address_counts_behind_a_trusted_proxy(trust: int, forwarded: str, address: str) -> None:
    environ = {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": forwarded, "wsgi.url_scheme": "http"}
    expected = address if trust else "127.0.0.1"
    assert client_address(environ) == expected
    ProxyFix(lambda environ, _: [], x_for=trust, x_proto=0, x_host=0, x_port=0, x_prefix=0)(environ, lambda *_: None)
    assert client_address(environ) == expected


@pytest.mark.parametrize("peer", ["", None])
def test_peer_without_an_address_has_none(trust: int, peer: str | None) -> None:
    assert client_address({"REMOTE_ADDR": peer}) == ""


def test_ipv6_client_is_counted_by_its_network() -> None:
    assert network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("198.51.100.7") == "198.51.100.7"
    assert network_of("") == ""


def test_wrong_keys_count_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(clients.time, "monotonic", lambda: now[0])
    wrong_keys = WrongKeys()
    for _ in range(20):
        assert wrong_keys.count("a") is None
        now[0] += 1
    assert wrong_keys.count("b") is None
    assert wrong_keys.count("a") == 41  # when the second one of those is a minute old
    now[0] += 41
    assert wrong_keys.count("a") is None
    now[0] += 0.5
    assert wrong_keys.count("a") == 2
    now[0] += 2
    assert wrong_keys.count("a") is None


def test_a_bounded_number_of_networks_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "MAX_NETWORKS", 100)
    wrong_keys = WrongKeys()
    for number in range(1000):
        wrong_keys.count(f"n{number}")
        for _ in range(2):
            wrong_keys.count("busy")
    assert len(wrong_keys._times) == 100
    assert wrong_keys.count("busy") is not None
