"""Handlers whose jobs the console's tests watch, and hostile ones, whose every text would be a script as HTML."""

import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from jobsvc import Context, handler

SCRIPTS = (
    "<script>pwned()</script>\"><img src=x onerror=pwned()>'><svg onload=pwned()></pre></textarea></title></script>"
    "<a href='javascript:pwned()' autofocus onfocus=pwned()>x</a>{{ pwned() }}${pwned()}&lt;img src=x onerror=pwned()>"
    "<b data-from=job hx-get=/jobs hx-trigger=load>&amp;--><!--\\');pwned();//"
)
"""Text that runs, or leaves an element behind, where a page does not escape it."""


class Address(BaseModel):
    """Where a parcel goes."""

    city: str = Field(max_length=80)
    zip: str = Field("", description="Letters and digits.")


class Parcel(BaseModel):
    """What is sent."""

    to: str = Field(min_length=1, max_length=100, description="The receiver.")
    weight: float = Field(1, gt=0, le=30, description="In kilograms.")
    size: Literal["small", "large"] = "small"
    express: bool = False
    address: Address | None = None
    labels: list[str] = []


@handler("PARCEL", retry={"max": 0})
def parcel(payload: Parcel, ctx: Context) -> dict[str, Any]:
    """Send a parcel."""
    ctx.log(f"to {payload.to}")
    return {"sent": payload.model_dump()}


class Steps(BaseModel):
    """Files that let it go on, one after each step."""

    files: list[str] = []


@handler("STEPS", retry={"max": 0})
def steps(payload: Steps, ctx: Context) -> int:
    """Report a step, and wait for its file, for each of them."""
    for number, file in enumerate(payload.files, start=1):
        ctx.progress(100 * number / (len(payload.files) + 1), f"step {number}")
        ctx.log(f"in step {number}")
        while not Path(file).exists():
            time.sleep(0.01)
    return len(payload.files)


class Broken(BaseModel):
    """Which attempts fail."""

    fails: int = 1
    message: str = "the receiver has moved"


class ReceiverUnknown(Exception):
    """The error of BROKEN."""


@handler("BROKEN", retry={"max": 0})
def broken(payload: Broken, ctx: Context) -> str:
    """Fail the first attempts."""
    ctx.log(f"attempt {ctx.attempt} starts")
    if ctx.attempt <= payload.fails:
        raise ReceiverUnknown(payload.message)
    return "delivered"


class Hostile(BaseModel):
    """Fields whose names, defaults and descriptions are hostile."""

    model_config = {"title": SCRIPTS}

    text: str = Field("", description=SCRIPTS, json_schema_extra={"placeholder": SCRIPTS})
    odd: str = Field(SCRIPTS, alias=f"{SCRIPTS}/~", title=SCRIPTS)
    choice: Literal["<script>pwned()</script>", '"><img src=x onerror=pwned()>'] | None = None
    fails: int = 0
    waits: str = ""


NAME = SCRIPTS[:60]
"""A job type may have any printable name."""


def _hostile(payload: Hostile, ctx: Context) -> dict[str, Any]:
    text = payload.text or SCRIPTS
    for line in (text, SCRIPTS):
        ctx.log(line)
    ctx.progress(50, SCRIPTS)
    while payload.waits and not Path(payload.waits).exists():
        time.sleep(0.01)
    if ctx.attempt <= payload.fails:
        raise type(SCRIPTS, (Exception,), {})(f"{SCRIPTS}\n{text}")
    return {"text": text, SCRIPTS: [SCRIPTS]}


_hostile.__doc__ = SCRIPTS
handler(NAME, retry={"max": 0})(_hostile)
