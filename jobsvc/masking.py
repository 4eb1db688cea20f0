"""Masks secrets in jobs that are shown: header values of HTTP_REQUEST, and passwords in URLs."""

import re
from typing import Any

MASK = "***"

MASKED_TYPES = ("HTTP_REQUEST", "WEBHOOK")
"""Types whose jobs may contain headers: requests, and webhook deliveries, whose `data` may be a request."""

_SECRET_NAME = re.compile("auth|cookie|token|key|secret|password|signature|session|credential", re.IGNORECASE)
_PASSWORD = re.compile(r"(//[^/?#\s:@]*:)[^/?#\s]*@")


def mask_passwords(text: str) -> str:
    """Return the text with the password in each URL replaced by ***."""
    return _PASSWORD.sub(rf"\1{MASK}@", text)


def mask_payload(type_: str, payload: Any) -> Any:
    """Return a copy of a job's payload without secrets; the payload itself if its type has none.

    The payload may have any shape: it is unchecked if it was inserted by SQL.
    """
    if type_ not in MASKED_TYPES or not isinstance(payload, dict):
        return payload
    masked = _mask_headers(payload)
    if isinstance(url := masked.get("url"), str):
        masked["url"] = mask_passwords(url)
    if type_ == "WEBHOOK" and isinstance(body := masked.get("body"), dict):
        masked["body"] = {**body, "data": mask_job(body.get("data"))}
    return masked


def mask_result(type_: str, result: Any) -> Any:
    """Return a copy of a job's result without secrets; the result itself if its type has none."""
    return _mask_headers(result) if type_ in MASKED_TYPES and isinstance(result, dict) else result


def may_find_secrets(part: Any) -> bool:
    """Return True if a search for payloads that contain this JSON could find out what is masked in them."""
    match part:
        case str():
            return mask_passwords(part) != part
        case dict():
            return "headers" in part or any(map(may_find_secrets, part.values()))
        case list():
            return any(map(may_find_secrets, part))
    return False


def mask_job(job: Any) -> Any:
    """Return a copy of a job's JSON, or of a body of POST /jobs, without secrets in its payload and result."""
    if not isinstance(job, dict) or job.get("type") not in MASKED_TYPES:
        return job
    parts = {"payload": mask_payload, "result": mask_result}
    return {name: parts[name](job["type"], value) if name in parts else value for name, value in job.items()}


def _mask_headers(holder: dict[str, Any]) -> dict[str, Any]:
    headers = holder.get("headers")
    if not isinstance(headers, dict):
        return dict(holder)
    return {**holder, "headers": {name: _mask_header(name, value) for name, value in headers.items()}}


def _mask_header(name: str, value: Any) -> Any:
    if _SECRET_NAME.search(name):
        return MASK
    return mask_passwords(value) if isinstance(value, str) else value
