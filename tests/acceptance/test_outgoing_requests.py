"""Outgoing requests against targets that send odd bytes.

Informational answers: 100, 102, 103, unknown ones; several in a row, many, slow, without end, with headers that would
fit an answer (Content-Length, Transfer-Encoding, Location); 101, unrequested; for HTTP_REQUEST and webhooks,
over http and https.

Redirects to another origin: another host, port or scheme; a name in another case is the same origin;
there and back again; headers of every kind of secret; with and without a body.

Redirects that name no place: bad IPv6, bad ports (0, too large, no number, none after the colon), control characters,
spaces, backslashes, no UTF-8, too long, empty, several, other schemes, user names, no host.

Bodies: charsets (quoted, unknown, not text codecs, multi-byte, missing), byte order marks, cut within a character,
content codings that don't fit.
"""

import gzip
import json
import socketserver
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.raw_target import OK, RawTarget, raw_target, redirect, reply
from tests.support.service import Service, eventually

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD1Zq2YfQ="
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
Call = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS for 127.0.0.1 and localhost, and the certificate to trust."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost", "-addext", names]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


@pytest.fixture(scope="module")
def service(apart: dict[str, str], tls: tuple[ssl.SSLContext, Path]) -> Iterator[Service]:
    env = {"JOBSVC_WEBHOOK_SECRETS": SECRET, "JOBSVC_SWEEP_SECONDS": "0.2", "JOBSVC_CONCURRENCY": "4"}
    env |= {"JOBSVC_HTTP_ALLOW": "127.0.0.0/8,::1/128", "SSL_CERT_FILE": str(tls[1])}
    service = Service({**env, **apart})
    service.worker()
    yield service
    service.close()


@pytest.fixture
def target() -> Iterator[RawTarget]:
    with raw_target() as found:
        yield found


@pytest.fixture
def call(service: Service) -> Call:
    def call(url: str, *, retries: int = 0, timeout: float = 30, **payload: Any) -> dict[str, Any]:
        payload = {"url": url, "method": "GET", **payload}
        retry = {"max": retries, "interval": 0}
        return service.until(service.post("HTTP_REQUEST", payload, retry=retry, timeout=timeout), "COMPLETED", "FAILED")

    return call


# Informational answers


@pytest.mark.parametrize(
    "before",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n",
        HINTS,
        b"HTTP/1.1 110 Unheard Of\r\n\r\n",
        b"HTTP/1.1 199\r\n\r\n",
        HINTS * 3 + b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + HINTS,
        HINTS * 2000,
        b"HTTP/1.1 103 X\r\nContent-Length: 500\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 103 X\r\nTransfer-Encoding: chunked\r\nRetry-After: 9\r\nLocation: http://[bad/\r\n\r\n",
    ],
    ids=["100", "102", "103", "110", "199", "several", "many", "length", "chunked"],
)
def test_informational_responses_are_skipped(call: Call, target: RawTarget, before: bytes) -> None:
    target.answers["/"] = before + OK
    job = call(target.url)
    assert (job["status"], job["attempts"]) == ("COMPLETED", 1)
    assert (job["result"]["status"], job["result"]["body"]) == (200, "ok")
    assert "link" not in job["result"]["headers"]
    assert len(target.seen) == 1


def test_informational_response_before_a_failure_or_redirect_is_skipped(call: Call, target: RawTarget) -> None:
    target.answers["/missing"] = HINTS + b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    assert call(f"{target.url}/missing")["error"]["message"] == "the answer was 404"
    target.answers["/redirect"] = HINTS + redirect(b"/here")
    target.answers["/here"] = HINTS + OK
    assert call(f"{target.url}/redirect")["result"]["body"] == "ok"


def test_slow_informational_responses_are_skipped(call: Call, target: RawTarget) -> None:
    def slowly(connection: socketserver.StreamRequestHandler) -> None:
        for _ in range(4):
            connection.wfile.write(HINTS)
            target.done.wait(0.3)
        connection.wfile.write(OK)

    target.answers["/"] = slowly
    assert call(target.url)["result"]["body"] == "ok"


def endlessly(pause: float) -> Callable[[socketserver.StreamRequestHandler], None]:
    def answer(connection: socketserver.StreamRequestHandler) -> None:
        while not connection.server.done.wait(pause):  # type: ignore[attr-defined]
            connection.wfile.write(HINTS * (1 if pause else 100))

    return answer


def test_endless_informational_responses_fail_the_attempt(call: Call, target: RawTarget) -> None:
    target.answers["/"] = endlessly(0)
    job = call(target.url)
    assert job["error"]["type"] == "UnexpectedStatus"
    assert "informational" in job["error"]["message"]
    target.answers["/"] = endlessly(0.1)
    job = call(target.url, timeout=1.5)
    assert job["error"]["type"] == "Timeout", job["error"]


def test_unrequested_upgrade_fails_the_attempt(call: Call, target: RawTarget) -> None:
    def switch(connection: socketserver.StreamRequestHandler) -> None:
        connection.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        target.done.wait(30)

    target.answers["/"] = switch
    started = time.monotonic()
    assert call(target.url)["error"]["message"] == "the answer was 101"
    assert time.monotonic() - started < 20


def test_informational_responses_to_webhooks_are_skipped(service: Service, target: RawTarget) -> None:
    target.answers["/"] = HINTS + b"HTTP/1.1 102 Processing\r\n\r\n" + OK
    job_id = service.post(webhookUrl=f"{target.url}/")
    service.until(job_id, "COMPLETED")
    delivery = service.until(service.job(job_id)["webhookJobId"], "COMPLETED", "RETRYING", "FAILED")
    assert (delivery["status"], delivery["attempts"], len(target.seen)) == ("COMPLETED", 1, 1)


def test_informational_responses_over_https_are_skipped(call: Call, tls: tuple[ssl.SSLContext, Path]) -> None:
    with raw_target(tls[0]) as target:
        target.answers["/"] = HINTS * 2 + OK
        job = call(target.url)
        assert (job["status"], job.get("result", {})["body"]) == ("COMPLETED", "ok"), job


# Redirects to other origins

SECRETS = {
    "Authorization": "Bearer s3cret",
    "Proxy-Authorization": "Basic s3cret",
    "Cookie": "a=s3cret",
    "X-API-Key": "s3cret",
    "Api-Key": "s3cret",
    "X-Auth-Token": "s3cret",
    "Private-Token": "s3cret",
    "X-Amz-Security-Token": "s3cret",
    "Referer": "https://x/?s3cret",
    "X-Anything": "s3cret",
    "traceState": "s3cret",
}
HARMLESS = {"Accept": "text/x", "Accept-Language": "de", "User-Agent": "mine"}


def names(target: RawTarget, number: int = -1) -> set[str]:
    return set(target.seen[number].headers)


def lower(headers: dict[str, str]) -> set[str]:
    return {name.lower() for name in headers}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_only_harmless_headers_are_sent_to_another_origin(call: Call, target: RawTarget, status: int) -> None:
    with raw_target() as other:
        target.answers["/redirect"] = redirect(f"{other.url}/there".encode(), status)
        job = call(f"{target.url}/redirect", method="POST", body={"a": 1}, headers={**SECRETS, **HARMLESS})
        [seen] = other.seen
        assert "s3cret" not in str(seen)
        assert lower(HARMLESS) <= set(seen.headers)
        assert (seen.headers["user-agent"], seen.headers["jobsvc-job-id"]) == ("mine", job["id"])
        assert {"jobsvc-attempt", "jobsvc-fence", "traceparent"} <= set(seen.headers)
        stays = status in (307, 308)
        assert (seen.method, seen.body) == (("POST", b'{"a": 1}') if stays else ("GET", b""))
        assert ("content-type" in seen.headers) == stays
        assert lower(SECRETS) <= names(target)


def test_other_name_of_the_same_address_is_another_origin(call: Call, target: RawTarget) -> None:
    target.answers["/redirect"] = redirect(f"http://localhost:{target.port}/there".encode())
    call(f"{target.url}/redirect", headers=SECRETS)
    assert [seen.path for seen in target.seen] == ["/redirect", "/there"]
    assert not lower(SECRETS) & names(target)


def test_another_scheme_is_another_origin(call: Call, target: RawTarget, tls: tuple[ssl.SSLContext, Path]) -> None:
    with raw_target(tls[0]) as secure:
        target.answers["/up"] = redirect(f"{secure.url}/there".encode())
        secure.answers["/down"] = redirect(f"{target.url}/there".encode())
        assert call(f"{target.url}/up", headers=SECRETS)["status"] == "COMPLETED"
        assert not lower(SECRETS) & names(secure)
        assert call(f"{secure.url}/down", headers=SECRETS)["status"] == "COMPLETED"
        assert not lower(SECRETS) & names(target)


def test_all_headers_are_sent_to_the_same_origin(call: Call, target: RawTarget) -> None:
    for number, place in enumerate(
        [b"/there", b"there?x=1", b"?y=1#part", f"HTTP://LOCALHOST:{target.port}/".encode()]
    ):
        target.answers["/redirect"] = redirect(place)
        target.seen.clear()
        if number == 2:
            target.answers["/redirect"] = redirect(b"/there?y=1#part")
        call(f"http://localhost:{target.port}/redirect", headers={**SECRETS, **HARMLESS})
        assert len(target.seen) == 2
        assert lower({**SECRETS, **HARMLESS}) <= names(target)
        assert "#" not in target.seen[1].path


def test_dropped_headers_are_not_restored_on_the_way_back(call: Call, target: RawTarget) -> None:
    with raw_target() as other:
        target.answers["/redirect"] = redirect(f"{other.url}/there".encode())
        other.answers["/there"] = redirect(f"{target.url}/home".encode())
        call(f"{target.url}/redirect", headers=SECRETS)
        assert [seen.path for seen in target.seen] == ["/redirect", "/home"]
        assert not lower(SECRETS) & names(target)


# Redirects that name no place


@pytest.mark.parametrize(
    "location",
    [
        b"http://[bad/",
        b"http://[::1/",
        b"//[x]/",
        b"http://[::1]x/",
        b"http://127.0.0.1:0/",
        b"//127.0.0.1:0/",
        b"http://127.0.0.1:65536/",
        b"http://127.0.0.1:99999999999999999999/",
        b"http://127.0.0.1:port/",
        b"http://127.0.0.1:/",
        b"http://127.0.0.1:-1/",
        b"http://127.0.0.1:8\xd9\xa3/",
        b"http:///there",
        b"http:there",
        b"///there",
        b"http://",
        b"//",
        b"/a\x01b",
        b"/a\tb",
        b"/a b",
        b"/a\x7fb",
        b"\\\\127.0.0.1\\x",
        b"http://user@127.0.0.1/",
        b"http://user:s3cret@127.0.0.1/",
        b"ftp://127.0.0.1/",
        b"javascript:alert(1)",
        b"data:text/plain,x",
        b"file:///etc/passwd",
        b"mailto:a@example.com",
        b"/\xff\xfe",
        b"http://\xff.example/",
        b"http://a..b/",
        b"http://" + b"a" * 64 + b".example/",
        b"http://" + b"a." * 2000 + b"example/",
        b"/" + b"x" * 9000,
        b"/" + b"x" * 70_000,
        b"",
        b"   ",
        b"/a\r\nLocation: /b",
        b"/a\r\n b",
    ],
    ids=lambda location: repr(location[:24]),
)
def test_redirect_without_a_valid_location_discards_the_job(
    service: Service, call: Call, target: RawTarget, location: bytes
) -> None:
    target.answers["/redirect"] = redirect(location)
    job = call(f"{target.url}/redirect", retries=3)
    assert (job["status"], job["attempts"], len(target.seen)) == ("FAILED", 1, 1)
    assert job["error"]["type"] == "Refused", job["error"]
    message = job["error"]["message"]
    assert "redirect" in message or "the URL" in message or "header" in message
    assert len(message) < 500
    assert "s3cret" not in message
    assert [attempt["outcome"] for attempt in service.attempts(job["id"])] == ["discarded"]


def test_equal_or_utf_8_locations_are_followed(call: Call, target: RawTarget) -> None:
    target.answers["/redirect"] = redirect(b"/there\r\nLocation: /there")
    assert call(f"{target.url}/redirect")["status"] == "COMPLETED"
    target.answers["/redirect"] = redirect("/ü?ö".encode())
    assert call(f"{target.url}/redirect")["status"] == "COMPLETED"
    assert target.seen[-1].path == "/%C3%BC?%C3%B6"


# Ports


@pytest.mark.parametrize(
    "port", ["0", "00", "00000", "65536", "99999999999", "", "x", "-1", "+80", "8 0", "٣", "80:80"]
)
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_invalid_port_is_refused_when_posted(service: Service, host: str, port: str) -> None:
    url = f"http://{host}:{port}/"
    for body, pointer in (
        ({"type": "HTTP_REQUEST", "payload": {"url": url}}, "/payload/url"),
        ({"webhookUrl": url}, "/webhookUrl"),
    ):
        reply = service.client.post("/jobs", json=body)
        assert reply.status_code == 422
        [error] = reply.json()["errors"]
        assert error["pointer"] == pointer
        assert "port" in error["detail"] or "space" in error["detail"]


# Bodies

EURO = "naïve €"


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("text/plain; charset=iso-8859-1", "café".encode("latin-1"), "café"),
        ("text/plain; charset=windows-1252", EURO.encode("cp1252"), EURO),
        ('text/html; charset="windows-1252"', EURO.encode("cp1252"), EURO),
        ("TEXT/HTML; Charset = 'ISO-8859-15' ; x=y", EURO.encode("iso-8859-15"), EURO),
        ("text/plain; format=flowed; charset=Shift_JIS", "日本".encode("shift_jis"), "日本"),
        ("text/csv; charset=utf-16", EURO.encode("utf-16"), EURO),
        ("text/plain; charset=utf-16be", EURO.encode("utf-16-be"), EURO),
        ("text/plain", EURO.encode(), EURO),
        ("text/plain; charset=utf-8", b"\xef\xbb\xbfok", "ok"),
        ("text/plain; charset=iso-8859-1", b"\xef\xbb\xbf" + EURO.encode(), EURO),
        ("text/plain", EURO.encode("utf-16"), EURO),
        ("text/plain; charset=no-such", b"caf\xe9", "caf\ufffd"),
        ("text/plain; charset=", b"caf\xe9", "caf\ufffd"),
        ("text/plain; charset=base64", b"Y2Fmw6k=", "Y2Fmw6k="),
        ("text/plain; charset=rot13", b"abc", "abc"),
        ("text/plain; charset=unicode_escape", b"\\x41\\q", "\\x41\\q"),
        ("text/plain; charset=idna", b"xn--bcher-kva", "xn--bcher-kva"),
        ("text/plain; charset=undefined", b"abc", "abc"),
        ("text/plain; charset=../../x", b"abc", "abc"),
        ("application/xml; charset=iso-8859-1", "é".encode("latin-1"), "é"),
        ("application/json; charset=iso-8859-1", '{"a": "é"}'.encode("latin-1"), {"a": "é"}),
        ("application/json", '{"a": "é"}'.encode(), {"a": "é"}),
        ("application/json", '{"a": "é"}'.encode("utf-16"), {"a": "é"}),
        ("application/json; charset=utf-8", b"\xef\xbb\xbf[1]", [1]),
        ("application/problem+json", b'{"a": 1}', {"a": 1}),
        ("text/json", b"[1]", [1]),
        ("application/json", b'{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
        ("application/json", b'{"a": NaN}', '{"a": NaN}'),
        ("application/json", b"9" * 5000, "9" * 5000),
        ("application/json", b'{"a": ', '{"a": '),
        ("application/octet-stream", b"\x89PNG\x00\xff", "\ufffdPNG\ufffd\ufffd"),
        ("application/octet-stream", b"\xff\xfea\x00", "\ufffd\ufffda\ufffd"),
    ],
    ids=lambda value: str(value)[:36],
)
def test_body_is_decoded_by_its_charset(
    call: Call, target: RawTarget, content_type: str, body: bytes, expected: Any
) -> None:
    target.answers["/"] = reply(content_type, body)
    job = call(target.url)
    assert (job["status"], job["attempts"]) == ("COMPLETED", 1)
    assert job["result"]["body"] == expected


@pytest.mark.parametrize("charset", ["utf-8", "utf-16-le", "gb18030", "shift_jis"])
def test_body_is_not_cut_within_a_character(call: Call, target: RawTarget, charset: str) -> None:
    text = "xx" + "日本" * 40_000
    target.answers["/"] = reply(f"text/plain; charset={charset}", text.encode(charset))
    body = call(target.url)["result"]["body"]
    assert text.startswith(body)
    assert 64 * 1024 - 4 <= len(body.encode(charset)) <= 64 * 1024


def test_body_without_a_content_type_is_text(call: Call, target: RawTarget) -> None:
    target.answers["/"] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
    assert call(target.url)["result"]["body"] == "abc"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "x-unknown", "gzip, gzip"])
def test_body_with_a_wrong_content_encoding_is_shown_raw(call: Call, target: RawTarget, coding: str) -> None:
    target.answers["/"] = reply("text/plain", b"not compressed", f"Content-Encoding: {coding}")
    job = call(target.url)
    assert (job["status"], job["attempts"], job["result"]["body"]) == ("COMPLETED", 1, "not compressed")


def test_compressed_body_is_decoded_and_cut(call: Call, target: RawTarget) -> None:
    target.answers["/"] = reply("application/json", gzip.compress(b'{"a": "\xc3\xa9"}'), "Content-Encoding: gzip")
    assert call(target.url)["result"]["body"] == {"a": "é"}
    target.answers["/"] = reply("text/plain", gzip.compress(b"x" * 50_000_000), "Content-Encoding: gzip")
    assert call(target.url)["result"]["body"] == "x" * 65536
    target.answers["/"] = reply("text/plain", gzip.compress(EURO.encode())[:-9], "Content-Encoding: gzip")
    assert call(target.url)["status"] == "COMPLETED"


# Headers that are the service's


@pytest.mark.parametrize(
    "name",
    [
        "Upgrade",
        "TE",
        "Expect",
        "Keep-Alive",
        "Trailer",
        "Proxy-Connection",
        "Connection",
        "Host",
        "Content-Length",
        "Transfer-Encoding",
        "HTTP2-Settings",
        "uPGRADE",
    ],
)
def test_connection_headers_are_refused_when_posted(service: Service, name: str) -> None:
    payload = {"url": "http://127.0.0.1/", "headers": {name: "x"}}
    reply = service.client.post("/jobs", json={"type": "HTTP_REQUEST", "payload": payload})
    assert reply.status_code == 422
    [error] = reply.json()["errors"]
    assert error["pointer"].startswith("/payload/headers")
    assert "is set by the service" in error["detail"]


def test_requests_send_only_their_own_connection_headers(call: Call, target: RawTarget) -> None:
    call(target.url, method="POST", body=[1])
    [seen] = target.seen
    assert seen.headers["host"] == f"127.0.0.1:{target.port}"
    assert seen.headers["content-length"] == str(len(json.dumps([1])))
    assert not {"te", "upgrade", "expect", "trailer", "keep-alive"} & set(seen.headers)
    eventually(lambda: len(target.seen) == 1)
