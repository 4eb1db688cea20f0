"""WEBHOOK: tells a URL that a job has ended, as Standard Webhooks 1.0 has it."""

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

GONE = 410


class Unsigned(Exception):
    """JOBSVC_WEBHOOK_SECRETS is not set."""


class Message(BaseModel):
    """What is told: `type` is job.completed, job.failed or job.cancelled, `data` the job."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    type: str
    timestamp: str
    data: dict[str, Any]


class Delivery(BaseModel):
    """What is told to whom."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: str
    body: Message


@handler(DELIVERY, timeout=30, retry={"max": 9, "interval": [5, 30, 120, 600, 3600, 3 * 3600]})
def webhook(payload: Delivery, ctx: Context) -> dict[str, Any]:
    """Send the message, the same at each attempt, signed anew; a 2xx is success, with {status} as the result."""
    secrets = settings().JOBSVC_WEBHOOK_SECRETS
    if not secrets:
        raise Unsigned("JOBSVC_WEBHOOK_SECRETS is not set here")
    body = json.dumps(payload.body.model_dump(), ensure_ascii=False, separators=(",", ":")).encode()
    now = int(pgclock.now())  # receivers refuse what is off by minutes
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
        if status == GONE:
            raise Refused(f"the answer was {GONE}: nobody listens there any more")
        raise UnexpectedStatus(f"the answer was {status}")
    finally:
        response.close()


def sign(secrets: Sequence[bytes], id_: str, timestamp: int, body: bytes) -> str:
    """The signature by each of these secrets, so that a receiver may know any of them."""
    signed = f"{id_}.{timestamp}.".encode() + body
    return " ".join(f"v1,{b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()}" for secret in secrets)
