"""Requests that leave the service, for HTTP_REQUEST and WEBHOOK alike: to checked addresses, and judged by one rule."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import urllib3

from jobsvc.config import settings
from jobsvc.handlers import guard
from jobsvc.handlers.context import Discard, RetryIn

MAX_URL = 8192
MAX_RETRY_AFTER = 86400.0
CONNECT_SECONDS = 10.0


class UnexpectedStatus(Exception):
    """The answer's status is not a success."""


class Refused(Discard):
    """The request may not be sent; another attempt wouldn't change that."""


def read(url: str) -> guard.Url:
    """The URL in its parts. Raises Refused."""
    try:
        return guard.read_url(url)
    except ValueError as error:
        raise Refused(f"the URL {url[:200]!r} {error}") from None


def send(url: guard.Url, method: str, headers: dict[str, str], body: bytes | None) -> urllib3.BaseHTTPResponse:
    """One request, to the very addresses that were checked, the next where one doesn't answer.

    Follows no redirect. The caller closes the response. Raises Refused for an address that may not be reached.
    """
    try:
        addresses = guard.resolve(url, settings().JOBSVC_HTTP_ALLOW)
    except guard.AddressRefused as error:
        raise Refused(str(error)) from None
    # The attempt's timeout bounds the whole; a dead address shall not use it up.
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=None)
    for number, address in enumerate(addresses, 1):
        pool: urllib3.HTTPConnectionPool
        if url.scheme == "https":
            pool = urllib3.HTTPSConnectionPool(
                address, url.port, timeout=timeout, server_hostname=url.host, assert_hostname=url.host
            )
        else:
            pool = urllib3.HTTPConnectionPool(address, url.port, timeout=timeout)
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
    """Raise RetryIn when a 429 or a 503 says in its Retry-After when to come again."""
    if response.status in (429, 503):
        seconds = _retry_after(response.headers.get("retry-after"))
        if seconds is not None:
            raise RetryIn(seconds, f"the answer was {response.status}, to be tried again in {seconds:g} s")


def _retry_after(value: str | None) -> float | None:
    """The seconds of a Retry-After header, a number or a date (RFC 9110 §10.2.3), None if it can't be read."""
    if not value:
        return None
    try:
        seconds = float(value) if value.strip().isdigit() else _seconds_until(parsedate_to_datetime(value))
    except ValueError:
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _seconds_until(moment: datetime) -> float:
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
