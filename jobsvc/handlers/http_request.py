"""HTTP_REQUEST: calls a URL, so that a service in any language can do the work."""

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Literal
from urllib.parse import urljoin

import urllib3
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from jobsvc.config import settings
from jobsvc.handlers import guard
from jobsvc.handlers.context import Context, Discard, RetryIn
from jobsvc.handlers.registry import handler
from jobsvc.strictjson import clean, unstorable

MAX_BODY = 64 * 1024
MAX_HEADER = 4 * 1024
MAX_REDIRECTS = 5
MAX_RETRY_AFTER = 86400.0
CONNECT_SECONDS = 10.0

_OURS = {"host", "content-length", "transfer-encoding", "connection"}
_REDIRECTS = (301, 302, 303, 307, 308)
_SECRET = {"authorization", "cookie", "proxy-authorization"}


class UnexpectedStatus(Exception):
    """The answer's status is not a success."""


class Refused(Discard):
    """The request may not be sent; another attempt wouldn't change that."""


def _public_url(text: str) -> str:
    spelled = guard.literal(guard.read_url(text).host)
    if spelled is not None and not guard.is_allowed(spelled, settings().JOBSVC_HTTP_ALLOW):
        raise ValueError(f"{spelled} is not a public address; JOBSVC_HTTP_ALLOW can let it in")
    return text


def _not_ours(name: str) -> str:
    if name.lower() in _OURS:
        raise ValueError("is set by the service")
    return name


HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"), AfterValidator(_not_ours)]
HeaderValue = Annotated[str, Field(pattern=r"^([!-~\xa1-\xff]([ \t!-~\xa1-\xff]*[!-~\xa1-\xff])?)?$")]


class HttpRequest(BaseModel):
    """The request to send."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")

    url: Annotated[str, Field(max_length=8192, json_schema_extra={"format": "uri"}), AfterValidator(_public_url)]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "POST"
    headers: Annotated[dict[HeaderName, HeaderValue], Field(json_schema_extra={"additionalProperties": False})] = {}
    body: Any = None
    expect_status: list[Annotated[int, Field(ge=100, le=599)]] = []


@handler("HTTP_REQUEST")
def http_request(payload: HttpRequest, ctx: Context) -> dict[str, Any]:
    """Send the request; a 2xx, or one of `expectStatus`, is success, with {status, headers, body} as the result."""
    headers = {"user-agent": "jobsvc", "accept": "*/*"} | {k.lower(): v for k, v in payload.headers.items()}
    headers |= {"jobsvc-job-id": ctx.job_id, "jobsvc-attempt": str(ctx.attempt), "jobsvc-fence": str(ctx.fence)}
    body = None
    if payload.body is not None:
        body = json.dumps(payload.body).encode()
        headers.setdefault("content-type", "application/json")
    response = _follow(payload, headers, body)
    try:
        return _judge(response, payload.expect_status)
    finally:
        response.close()


def _follow(payload: HttpRequest, headers: dict[str, str], body: bytes | None) -> urllib3.BaseHTTPResponse:
    """Send, and follow redirects as RFC 9110 §15.4 has it, each hop checked anew."""
    url, method = payload.url, payload.method
    for _ in range(MAX_REDIRECTS + 1):
        here = _read(url)
        response = _send(here, method, headers, body)
        location = response.headers.get("location")
        if response.status not in _REDIRECTS or response.status in payload.expect_status or not location:
            return response
        response.close()
        url = urljoin(url, location)
        if _read(url).origin != here.origin:
            headers = {name: value for name, value in headers.items() if name not in _SECRET}
        if response.status == 303 or (response.status in (301, 302) and method == "POST"):
            method, body = "HEAD" if method == "HEAD" else "GET", None
            headers = {name: value for name, value in headers.items() if name != "content-type"}
    raise UnexpectedStatus(f"more than {MAX_REDIRECTS} redirects")


def _read(url: str) -> guard.Url:
    try:
        return guard.read_url(url)
    except ValueError as error:
        raise Refused(f"the URL {url[:200]!r} {error}") from None


def _send(url: guard.Url, method: str, headers: dict[str, str], body: bytes | None) -> urllib3.BaseHTTPResponse:
    """One request, to the very addresses that were checked, the next where one doesn't answer."""
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


def _judge(response: urllib3.BaseHTTPResponse, expected: list[int]) -> dict[str, Any]:
    status = response.status
    if 200 <= status < 300 or status in expected:
        return {
            "status": status,
            "headers": {name.lower(): clean(value[:MAX_HEADER]) for name, value in response.headers.itermerged()},
            "body": _body(response),
        }
    message = f"the answer was {status}"
    if status in (429, 503):
        seconds = _retry_after(response.headers.get("retry-after"))
        if seconds is not None:
            raise RetryIn(seconds, f"{message}, to be tried again in {seconds:g} s")
    if 400 <= status < 500 and status not in (408, 429):
        raise Refused(message)
    raise UnexpectedStatus(message)


def _body(response: urllib3.BaseHTTPResponse) -> Any:
    """The body, decoded if it is JSON, else text; what is longer than MAX_BODY is cut, and then text."""
    raw = response.read(MAX_BODY + 1, decode_content=True) or b""
    if len(raw) <= MAX_BODY and "json" in response.headers.get("content-type", ""):
        try:
            decoded = json.loads(raw)
            if not any(unstorable(decoded)):
                return decoded
        except (ValueError, RecursionError):
            pass
    return clean(raw[:MAX_BODY].decode("utf-8", "replace"))


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
