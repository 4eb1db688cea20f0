"""HTTP_REQUEST: calls a URL, so that a service in any language can do the work."""

import http.client
import json
from typing import Annotated, Any, Literal

import urllib3
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from jobsvc import tracing
from jobsvc.handlers.context import Context
from jobsvc.handlers.http_client import MAX_URL, Refused, UnexpectedStatus, read, send, shorten, wait_if_asked
from jobsvc.handlers.registry import handler
from jobsvc.handlers.response_body import read_body
from jobsvc.handlers.ssrf import join, public_url
from jobsvc.strict_json import clean

MAX_HEADER = 4 * 1024
MAX_REDIRECTS = 5

_OURS = {
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
"""Headers of one connection or one message (RFC 9110 §7.6.1, §10.1.1); only the service can set them."""

_HARMLESS = {
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "content-type",
    "jobsvc-attempt",
    "jobsvc-fence",
    "jobsvc-job-id",
    "traceparent",
    "user-agent",
}
"""Headers that are sent to another origin after a redirect."""

_OF_A_BODY = {"content-encoding", "content-language", "content-location", "content-type"}
"""Headers that are dropped with the body by a redirect (RFC 9110 §15.4)."""

_REDIRECTS = (301, 302, 303, 307, 308)


def _not_ours(name: str) -> str:
    if name.lower() in _OURS:
        raise ValueError("is set by the service")
    return name


HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"), AfterValidator(_not_ours)]
HeaderValue = Annotated[str, Field(pattern=r"^([!-~\xa1-\xff]([ \t!-~\xa1-\xff]*[!-~\xa1-\xff])?)?$")]


def _name_keys(schema: dict[str, Any]) -> None:
    """Describe keys and values separately; client generators don't understand `patternProperties`."""
    [(pattern, value)] = schema.pop("patternProperties").items()
    schema |= {"propertyNames": {"pattern": pattern}, "additionalProperties": value}


class HttpRequest(BaseModel):
    """The request to send."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", hide_input_in_errors=True)

    url: Annotated[str, Field(max_length=MAX_URL, json_schema_extra={"format": "uri"}), AfterValidator(public_url)]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "POST"
    headers: Annotated[dict[HeaderName, HeaderValue], Field(json_schema_extra=_name_keys)] = {}
    body: Any = None
    expect_status: list[Annotated[int, Field(ge=200, le=599)]] = []


@handler("HTTP_REQUEST")
def http_request(payload: HttpRequest, ctx: Context) -> dict[str, Any]:
    """Send the request; a 2xx, or one of `expectStatus`, is success, with {status, headers, body} as the result."""
    headers = {
        "user-agent": "jobsvc",
        "accept": "*/*",
        "traceparent": tracing.outgoing_traceparent(ctx.job_id, ctx.traceparent),
    }
    headers |= {k.lower(): v for k, v in payload.headers.items()}
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
    """Send the request and follow redirects (RFC 9110 §15.4); the address of each hop is checked.

    After a redirect to another origin only harmless headers are sent. The body is sent as long as the method stays.
    """
    url, method = payload.url, payload.method
    for _ in range(MAX_REDIRECTS + 1):
        here = read(url)
        try:
            response = send(here, method, headers, body)
        except urllib3.exceptions.ProtocolError as error:
            if any(isinstance(reason, http.client.LineTooLong) for reason in error.args):
                raise Refused("the answer has a header of more than 64 KiB") from None
            raise
        places = response.headers.getlist("location")
        if response.status not in _REDIRECTS or response.status in payload.expect_status or not places:
            return response
        response.close()
        url = _next_url(url, places)
        if read(url).origin != here.origin:
            headers = {name: value for name, value in headers.items() if name in _HARMLESS}
        if response.status == 303 or (response.status in (301, 302) and method == "POST"):
            method, body = "HEAD" if method == "HEAD" else "GET", None
            headers = {name: value for name, value in headers.items() if name not in _OF_A_BODY}
    raise UnexpectedStatus(f"more than {MAX_REDIRECTS} redirects")


def _next_url(url: str, places: list[str]) -> str:
    """Return the URL in the Location headers of a response from `url`. Raises Refused if it is missing or invalid."""
    if len(set(places)) > 1:
        raise Refused(f"the redirect names {len(places)} places")
    try:
        # http.client reads headers as Latin-1; those that are not ASCII are UTF-8 in practice.
        place = places[0].encode("latin-1").decode().strip(" \t")
    except UnicodeError:
        raise Refused(f"the redirect to {shorten(places[0])} is not UTF-8") from None
    try:
        found = join(url, place) if place else ""
    except ValueError as error:
        raise Refused(f"the redirect to {shorten(place)} {error}") from None
    if not found:
        raise Refused("the redirect names no place: its Location is empty")
    if len(found) > MAX_URL:
        raise Refused(f"the redirect to {shorten(found)} is longer than {MAX_URL} characters")
    return found


def _judge(response: urllib3.BaseHTTPResponse, expected: list[int]) -> dict[str, Any]:
    status = response.status
    if 200 <= status < 300 or status in expected:
        return {
            "status": status,
            "headers": {name.lower(): clean(value[:MAX_HEADER]) for name, value in response.headers.itermerged()},
            "body": read_body(response),
        }
    wait_if_asked(response)
    message = f"the answer was {status}"
    if 400 <= status < 500 and status not in (408, 429):
        raise Refused(message)
    raise UnexpectedStatus(message)
