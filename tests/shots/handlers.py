"""The handlers of a small shop, whose jobs are in the pictures."""

import os
import time
from pathlib import Path
from random import Random

from pydantic import BaseModel, Field

from jobsvc import Context, handler

END = "JOBSVC_SHOTS_END"
"""The variable with the path of a file; once it exists, long jobs end."""


class Email(BaseModel):
    """A letter."""

    to: str = Field(description="The receiver's address.")
    subject: str = ""


class Image(BaseModel):
    """A picture, and the width of its copy."""

    path: str
    width: int = Field(320, ge=16, le=4096)


class Charge(BaseModel):
    """An amount of money."""

    order: int
    cents: int
    card: str = "ok"


class Import(BaseModel):
    """A file of orders."""

    file: str
    rows: int = 2400


class Stock(BaseModel):
    """A warehouse."""

    warehouse: str
    reachable: bool = True


class CardDeclined(Exception):
    """The bank has said no."""


class MailboxUnknown(Exception):
    """There is no such receiver."""


class ImageUnreadable(Exception):
    """The file is no picture."""


def _take(ctx: Context, low: float, high: float) -> None:
    time.sleep(Random(ctx.job_id).uniform(low, high))


@handler("SEND_EMAIL", retry={"max": 0})
def send_email(payload: Email, ctx: Context) -> dict[str, str]:
    """Send a letter to a customer."""
    _take(ctx, 0.01, 0.12)
    if payload.to.endswith("example.invalid"):
        raise MailboxUnknown(f"550 no mailbox {payload.to.partition('@')[2]}")
    return {"messageId": f"{ctx.job_id[-8:]}@shop.example"}


@handler("RESIZE_IMAGE", queue="low", retry={"max": 0})
def resize_image(payload: Image, ctx: Context) -> dict[str, object]:
    """Make a smaller copy of a picture."""
    ctx.progress(50, "read")
    _take(ctx, 0.05, 0.35)
    if payload.path.endswith(".psd"):
        raise ImageUnreadable("no decoder for image/vnd.adobe.photoshop")
    return {"path": f"/thumbs/{payload.width}/{payload.path}", "bytes": 18_204}


@handler("CHARGE_CARD", queue="high", retry={"max": 1, "interval": 0.2})
def charge_card(payload: Charge, ctx: Context) -> dict[str, object]:
    """Charge a customer's card for an order."""
    ctx.log(f"order {payload.order}: charging {payload.cents / 100:.2f} EUR")
    _take(ctx, 0.02, 0.2)
    if payload.card == "declined":
        raise CardDeclined("the bank declined the card: insufficient funds")
    if payload.card == "expired":
        raise CardDeclined("the bank declined the card: it has expired")
    if payload.card == "slow" and ctx.attempt == 1:
        raise TimeoutError("the bank did not answer within 5 s")
    return {"order": payload.order, "charged": payload.cents}


@handler("SYNC_STOCK", retry={"max": 5, "interval": [30, 60, 300]})
def sync_stock(payload: Stock, ctx: Context) -> dict[str, object]:
    """Read the stock of a warehouse."""
    ctx.log(f"connecting to {payload.warehouse}.stock.example")
    _take(ctx, 0.02, 0.1)
    if not payload.reachable:
        raise ConnectionError(f"{payload.warehouse}.stock.example: connection refused")
    return {"items": 5310}


@handler("IMPORT_ORDERS", timeout=3600)
def import_orders(payload: Import, ctx: Context) -> dict[str, object]:
    """Import a file of orders, row by row."""
    ctx.log(f"opened {payload.file}: {payload.rows} rows")
    for percent in (10, 25, 40, 55):
        ctx.log(f"row {payload.rows * percent // 100}: batch of 360 orders stored")
        time.sleep(0.15)
    ctx.progress(62, f"row {payload.rows * 62 // 100:,} of {payload.rows:,}")
    while not Path(os.environ[END]).exists():
        time.sleep(0.05)
    return {"imported": payload.rows}
