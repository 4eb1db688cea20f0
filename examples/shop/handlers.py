"""The shop's jobs. A job may run more than once, so each does its work once for each order."""

import os
from typing import Any

import urllib3
from pydantic import BaseModel

from examples.shop.app import transaction
from jobsvc import Context, RetryAfter, handler


class Order(BaseModel):
    order_id: int


@handler("ORDER_PLACED")
def order_placed(payload: Order, ctx: Context) -> list[str]:
    """Post the workflow of an order, all of it in one request."""
    order = payload.model_dump()
    steps = [
        {"ref": "charge", "type": "CHARGE", "payload": order},
        {"ref": "pack", "type": "PACK", "payload": order, "dependsOn": ["charge"]},
        {"type": "NOTIFY", "payload": order, "dependsOn": ["pack"]},
    ]
    # If this job is retried, the key gets it the steps of its first request.
    reply = _post(f"{os.environ['SHOP_JOBSVC_URL']}/jobs/batch", ctx.job_id, {"jobs": steps})
    return list(reply["jobIds"])


# The gateway accepts 5 requests in a second. The longer `per` allows for different times on the way there.
@handler("CHARGE", rate_limit={"limit": 5, "per": 1.25}, retry={"max": 5, "interval": 1})
def charge(payload: Order) -> dict[str, Any]:
    """Charge an order. The gateway charges a key once, and answers a repetition with the same receipt."""
    with transaction() as cursor:
        cursor.execute("SELECT cents FROM shop.orders WHERE id = %s", (payload.order_id,))
        [cents] = cursor.fetchone()
    return _post(os.environ["SHOP_GATEWAY_URL"], f"order-{payload.order_id}", {"cents": cents})


@handler("PACK")
def pack(payload: Order, ctx: Context) -> str:
    """Pack an order, with the receipt that CHARGE returned."""
    [charged] = ctx.dependencies.values()
    with transaction() as cursor:
        values = (charged["receipt"], payload.order_id)
        cursor.execute("UPDATE shop.orders SET receipt = %s WHERE id = %s", values)
    return f"parcel {payload.order_id}"


@handler("NOTIFY")
def notify(payload: Order, ctx: Context) -> None:
    """Notify the customer, with the parcel that PACK returned."""
    [parcel] = ctx.dependencies.values()
    with transaction() as cursor:
        values = (f"{parcel} is on its way", payload.order_id)
        cursor.execute("UPDATE shop.orders SET message = %s WHERE id = %s AND message IS NULL", values)


def _post(url: str, key: str, body: dict[str, Any]) -> Any:
    """POST with an idempotency key; returns the JSON of a 2xx. Raises RetryAfter if the server asks for it."""
    reply = urllib3.request("POST", url, json=body, headers={"Idempotency-Key": key}, retries=False, timeout=10)
    if reply.status == 429:
        raise RetryAfter(float(reply.headers["Retry-After"]))
    if reply.status >= 300:
        raise RuntimeError(f"{url}: {reply.status} {reply.data.decode(errors='replace')}")
    return reply.json()
