"""Handlers that only some of a test's processes load, and so know."""

import time
from pathlib import Path
from typing import Any

from jobsvc import Context, handler


@handler("NEW")
def new(payload: dict[str, Any], ctx: Context) -> int:
    time.sleep(payload.get("seconds", 0))
    if ctx.attempt <= payload.get("fails", 0):
        raise RuntimeError("fails, as asked")
    if path := payload.get("path"):
        with Path(path).open("a") as file:
            file.write(f"{payload.get('name', ctx.job_id)}\n")
    return ctx.attempt


@handler("NEW_TOO")
def new_too(payload: dict[str, Any]) -> int:
    return 1


@handler("NEW_LOW", queue="low", isolated=True)
def new_low(payload: dict[str, Any]) -> None:
    pass
