"""The guard: which addresses are public, and in how many ways one can be written."""

from ipaddress import ip_address, ip_network

import pytest

from jobsvc.handlers.ssrf import AddressRefused, is_allowed, literal, read_url, resolve

METADATA = ["169.254.169.254", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "169.254.43518", "169.16689662"]


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("255.255.255.255", "192.0.2.1", "198.18.0.1", "192.88.99.1", "240.0.0.1", "239.255.255.250"),
        *("::", "::1", "fe80::1", "fc00::1", "ff02::1", "fec0::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::ffff:0:7f00:1", "2002:7f00:1::", "64:ff9b::7f00:1"),
        *("::127.0.0.1", "64:ff9b:1::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
    ],
)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_allowed(ip_address(address), [])


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_allowed(ip_address(address), [])


def test_network_can_be_allowed() -> None:
    allow = [ip_network("10.0.0.0/8"), ip_network("::1/128")]
    assert is_allowed(ip_address("10.9.9.9"), allow)
    assert is_allowed(ip_address("::ffff:10.9.9.9"), allow)
    assert is_allowed(ip_address("::1"), allow)
    assert not is_allowed(ip_address("127.0.0.1"), allow)


@pytest.mark.parametrize("host", METADATA)
def test_every_spelling_of_an_address_is_recognized(host: str) -> None:
    assert str(literal(read_url(f"http://{host}/").host)) == "169.254.169.254"
    with pytest.raises(AddressRefused):
        resolve(read_url(f"http://{host}/latest/meta-data/"), [])


@pytest.mark.parametrize("host", ["①⑥⑨.②⑤④.①⑥⑨.②⑤④", "169。254。169。254", "１６９.254.169.254", "169.254.169.254."])
def test_unicode_spellings_are_recognized(host: str) -> None:
    assert str(literal(read_url(f"http://{host}/").host)) == "169.254.169.254"


def test_name_is_not_a_literal_address() -> None:
    assert literal("example.com") is None
    assert literal("localhost") is None
    for host in ("localhost.", "x_y.example", "1.example", "0x7f.example", "a.b-1.c9", "7up"):
        assert read_url(f"http://{host}/").host == host


def test_name_is_resolved_and_checked() -> None:
    with pytest.raises(AddressRefused, match="localhost leads to"):
        resolve(read_url("http://localhost/"), [])
    assert "127.0.0.1" in resolve(read_url("http://localhost/"), [ip_network("127.0.0.0/8"), ip_network("::1/128")])


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "/x", "//x/", "ftp://x/", "file:///etc/passwd", "http:", "http://", "http:///x", "javascript:1"),
        *(
            "http://user@x/",
            "http://user:pw@x/",
            "http://@x/",
            "http://x:99999/",
            "http://x:y/",
            "http://[::1/",
            "http://[x]/",
        ),
        *(
            "http://x/\n",
            "http://x/ y",
            "http://x\\@y/",
            "http://x\t.y/",
            "http://x\x00/",
            "http://" + "a" * 64 + ".com/",
        ),
        *("http://a..b/", "http://.a/", "http://*.x/", "http://a,b/", "http://a%2Eb/", "http://[v1.fe80::a]/"),
        *("http://4294967296/", "http://a.0x7f/", "http://1.2.3.4.5/", "http://425.510.425.510/"),
    ],
)
def test_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        read_url(url)


def test_url_is_split_into_parts() -> None:
    url = read_url("HTTP://EXAMPLE.com?q=1#part")
    assert (url.scheme, url.host, url.port, url.target, url.authority) == (
        "http",
        "example.com",
        80,
        "/?q=1",
        "example.com",
    )
    assert read_url("https://x:444/a").authority == "x:444"
    assert read_url("https://[2606:4700::1111]:443/").authority == "[2606:4700::1111]"
    assert read_url("http://bücher.example/").host == "xn--bcher-kva.example"
