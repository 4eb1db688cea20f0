"""Parsing of a URL that names sentinels."""

from redis.connection import SSLConnection

from jobsvc.servers import sentinel


def test_every_part_of_the_url_is_used() -> None:
    watched = sentinel.parse(
        "redis+sentinel://user:p%40%2Fss@a:1,b,[::1]:3/jobs-master/4?socket_timeout=3&sentinel_password=x%26y"
    )
    assert watched.addresses == [("a", 1), ("b", 26379), ("::1", 3)]
    assert watched.service == "jobs-master"
    assert watched.options == {"username": "user", "password": "p@/ss", "db": 4, "socket_timeout": 3.0}
    assert watched.sentinel_options == {"password": "x&y"}


def test_sentinels_use_the_same_tls_unless_configured() -> None:
    url = "rediss+sentinel://h/s?ssl_ca_certs=/ca&ssl_check_hostname=false&sentinel_ssl_ca_certs=/other"
    watched = sentinel.parse(url)
    assert watched.options["connection_class"] is watched.sentinel_options["connection_class"] is SSLConnection
    assert watched.options["ssl_ca_certs"] == "/ca"
    assert watched.sentinel_options["ssl_ca_certs"] == "/other"
    assert watched.sentinel_options["ssl_check_hostname"] is False


def test_url_options_override_the_callers() -> None:
    client = sentinel.connect("redis+sentinel://h/s?socket_timeout=7", socket_timeout=2, socket_connect_timeout=1)
    arguments = client.connection_pool.connection_kwargs
    assert (arguments["socket_timeout"], arguments["socket_connect_timeout"]) == (7, 1)
