"""Outgoing requests of HTTP_REQUEST and WEBHOOK: only to checked addresses, and with common rules for retries."""

import http.client
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import urllib3
import urllib3.connection

from jobsvc.config import settings
from jobsvc.handlers import ssrf
from jobsvc.handlers.context import Discard, RetryAfter
from jobsvc.masking import mask_passwords
from jobsvc.servers import pgclock

MAX_URL = 8192
MAX_RETRY_AFTER = 86400.0
CONNECT_SECONDS = 10.0
MAX_INFORMATIONAL = 10_000
"""Maximum informational responses before the final one; at one every 10 s they last for a day."""


class UnexpectedStatus(Exception):
    """The response's status is not a success."""


class Refused(Discard):
    """The request is not allowed; a retry wouldn't change that."""


class FinalResponse(http.client.HTTPResponse):
    """A response that skips all informational ones; http.client skips only 100 (urllib3/urllib3#3319)."""

    def begin(self) -> None:
        """Read up to the head of the final response (RFC 9110 §15.2).

        101 counts as final: no upgrade was requested, so no HTTP follows it. Raises UnexpectedStatus after
        more than MAX_INFORMATIONAL others.
        """
        super().begin()
        skipped = 0
        while 100 <= self.status < 200 and self.status != http.client.SWITCHING_PROTOCOLS:
            skipped += 1
            if skipped > MAX_INFORMATIONAL:
                raise UnexpectedStatus(f"more than {MAX_INFORMATIONAL} informational answers (1xx), and no final one")
            # Without headers, http.client reads the next head.
            self.headers = self.msg = None  # type: ignore[assignment]
            super().begin()


class _Connection(urllib3.connection.HTTPConnection):
    response_class = FinalResponse


class _TlsConnection(urllib3.connection.HTTPSConnection):
    response_class = FinalResponse


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def read(url: str) -> ssrf.Url:
    """Parse a URL. Raises Refused if it is invalid."""
    try:
        return ssrf.read_url(url)
    except ValueError as error:
        raise Refused(f"the URL {shorten(url)} {error}") from None


def shorten(url: str) -> str:
    """Return the URL for an error message: in ASCII, cut to 200 characters, its password masked."""
    return ascii(mask_passwords(url)[:200])


def send(url: ssrf.Url, method: str, headers: dict[str, str], body: bytes | None) -> urllib3.BaseHTTPResponse:
    """Send one request, to one of the checked addresses; tries the next if it can't connect.

    Follows no redirect. The caller closes the response. Raises Refused for an address that is not allowed.
    """
    try:
        addresses = ssrf.resolve(url, settings().JOBSVC_HTTP_ALLOW)
    except ssrf.AddressRefused as error:
        raise Refused(str(error)) from None
    # The attempt's timeout limits the whole request; one unreachable address must not use it up.
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=None)
    for number, address in enumerate(addresses, 1):
        pool: urllib3.HTTPConnectionPool
        if url.scheme == "https":
            pool = _TlsPool(address, url.port, timeout=timeout, server_hostname=url.host, assert_hostname=url.host)
        else:
            pool = _Pool(address, url.port, timeout=timeout)
        try:
            return pool.urlopen(
                method,
                url.target,
                body=body,
                headers=headers | {"host": url.authority},
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError):
            if number == len(addresses):
                raise
    raise AssertionError("resolve() returns an address or raises")


def wait_if_asked(response: urllib3.BaseHTTPResponse) -> None:
    """Raise RetryAfter if the response is 429 or 503 and has a valid Retry-After."""
    if response.status in (429, 503):
        seconds = _retry_after(response.headers.get("retry-after"), response.headers.get("date"))
        if seconds is not None:
            raise RetryAfter(seconds, f"the answer was {response.status}, to be tried again in {seconds:g} s")


def _retry_after(value: str | None, date: str | None = None) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date (RFC 9110 §10.2.3); None if it is invalid.

    date: the response's Date header; a Retry-After date is by the same clock.
    """
    if not value:
        return None
    try:
        seconds = float(value) if value.strip().isdigit() else (_read_date(value) - _sent_at(date)).total_seconds()
    except ValueError:
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _sent_at(date: str | None) -> datetime:
    try:
        return _read_date(date) if date else pgclock.utc_now()
    except ValueError:
        return pgclock.utc_now()


def _read_date(value: str) -> datetime:
    moment = parsedate_to_datetime(value)
    return moment.replace(tzinfo=moment.tzinfo or UTC)
