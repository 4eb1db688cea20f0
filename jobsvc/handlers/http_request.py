"""HTTP_REQUEST: calls a URL, so that a service in any language can do the work."""

import json
from typing import Annotated, Any, Literal
from urllib.parse import urljoin

import urllib3
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from jobsvc import tracing
from jobsvc.handlers.context import Context
from jobsvc.handlers.guard import public_url
from jobsvc.handlers.outgoing import MAX_URL, Refused, UnexpectedStatus, read, send, wait_if_asked
from jobsvc.handlers.registry import handler
from jobsvc.strictjson import clean, unstorable

MAX_BODY = 64 * 1024
MAX_HEADER = 4 * 1024
MAX_REDIRECTS = 5

_OURS = {"host", "content-length", "transfer-encoding", "connection"}
_REDIRECTS = (301, 302, 303, 307, 308)
_SECRET = {"authorization", "cookie", "proxy-authorization"}


def _not_ours(name: str) -> str:
    if name.lower() in _OURS:
        raise ValueError("is set by the service")
    return name


HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"), AfterValidator(_not_ours)]
HeaderValue = Annotated[str, Field(pattern=r"^([!-~\xa1-\xff]([ \t!-~\xa1-\xff]*[!-~\xa1-\xff])?)?$")]


class HttpRequest(BaseModel):
    """The request to send."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")

    url: Annotated[str, Field(max_length=MAX_URL, json_schema_extra={"format": "uri"}), AfterValidator(public_url)]
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "POST"
    headers: Annotated[dict[HeaderName, HeaderValue], Field(json_schema_extra={"additionalProperties": False})] = {}
    body: Any = None
    expect_status: list[Annotated[int, Field(ge=100, le=599)]] = []


@handler("HTTP_REQUEST")
def http_request(payload: HttpRequest, ctx: Context) -> dict[str, Any]:
    """Send the request; a 2xx, or one of `expectStatus`, is success, with {status, headers, body} as the result."""
    headers = {"user-agent": "jobsvc", "accept": "*/*", "traceparent": tracing.outgoing(ctx.job_id, ctx.traceparent)}
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
    """Send, and follow redirects as RFC 9110 §15.4 has it, each hop checked anew."""
    url, method = payload.url, payload.method
    for _ in range(MAX_REDIRECTS + 1):
        here = read(url)
        response = send(here, method, headers, body)
        location = response.headers.get("location")
        if response.status not in _REDIRECTS or response.status in payload.expect_status or not location:
            return response
        response.close()
        url = urljoin(url, location)
        if read(url).origin != here.origin:
            headers = {name: value for name, value in headers.items() if name not in _SECRET}
        if response.status == 303 or (response.status in (301, 302) and method == "POST"):
            method, body = "HEAD" if method == "HEAD" else "GET", None
            headers = {name: value for name, value in headers.items() if name != "content-type"}
    raise UnexpectedStatus(f"more than {MAX_REDIRECTS} redirects")


def _judge(response: urllib3.BaseHTTPResponse, expected: list[int]) -> dict[str, Any]:
    status = response.status
    if 200 <= status < 300 or status in expected:
        return {
            "status": status,
            "headers": {name.lower(): clean(value[:MAX_HEADER]) for name, value in response.headers.itermerged()},
            "body": _body(response),
        }
    wait_if_asked(response)
    message = f"the answer was {status}"
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
