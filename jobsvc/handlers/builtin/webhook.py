"""WEBHOOK: sends a request to a URL when a job has ended, as specified by Standard Webhooks 1.0."""

import hashlib
import hmac
import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from jobsvc import tracing
from jobsvc.config import settings
from jobsvc.handlers.context import Context
from jobsvc.handlers.http_client import Refused, UnexpectedStatus, read, send, wait_if_asked
from jobsvc.handlers.registry import DELIVERY, handler
from jobsvc.servers import pgclock

STOP_SENDING = 410
"""Status with which a receiver ends a webhook (Standard Webhooks 1.0)."""


class Unsigned(Exception):
    """JOBSVC_WEBHOOK_SECRETS is not set."""


class Message(BaseModel):
    """The message: `type` is job.completed, job.failed or job.cancelled; `data` is the job."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    type: str
    timestamp: str
    data: dict[str, Any]


class Delivery(BaseModel):
    """A message and the URL to send it to."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: str
    body: Message


@handler(DELIVERY, timeout=30, retry={"max": 9, "interval": [5, 30, 120, 600, 3600, 3 * 3600]})
def webhook(payload: Delivery, ctx: Context) -> dict[str, Any]:
    """Send the message, signed anew at each attempt. A 2xx is success, with {status} as the result."""
    secrets = settings().JOBSVC_WEBHOOK_SECRETS
    if not secrets:
        raise Unsigned("JOBSVC_WEBHOOK_SECRETS is not set here")
    body = json.dumps(payload.body.model_dump(), ensure_ascii=False, separators=(",", ":")).encode()
    now = int(pgclock.now())  # receivers refuse a timestamp that is minutes off
    headers = {
        "content-type": "application/json",
        "user-agent": "jobsvc",
        "webhook-id": ctx.job_id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign(secrets, ctx.job_id, now, body),
        "traceparent": tracing.outgoing_traceparent(ctx.job_id, ctx.traceparent),
    }
    response = send(read(payload.url), "POST", headers, body)
    try:
        status = response.status
        if 200 <= status < 300:
            return {"status": status}
        wait_if_asked(response)
        if status == STOP_SENDING:
            raise Refused(f"the answer was {STOP_SENDING}: the receiver wants no more messages")
        raise UnexpectedStatus(f"the answer was {status}")
    finally:
        response.close()


def sign(secrets: Sequence[bytes], id_: str, timestamp: int, body: bytes) -> str:
    """Return a signature by each of the secrets; a receiver needs to know only one of them."""
    signed = f"{id_}.{timestamp}.".encode() + body
    return " ".join(f"v1,{b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()}" for secret in secrets)
