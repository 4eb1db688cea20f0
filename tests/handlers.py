"""Handlers that behave badly, each in one way, and one that notes its runs."""

import ctypes
import os
import signal
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jobsvc import Context, Discard, Snooze, handler


class Note(BaseModel):
    path: str
    seconds: float = 0


class Sum(BaseModel):
    numbers: list[int]


@handler("NOTE")
def note(payload: Note, ctx: Context) -> int:
    """Append a line for every run, so that a test can count them."""
    with Path(payload.path).open("a") as file:
        file.write(f"{ctx.job_id} {ctx.attempt} {ctx.fence}\n")
    time.sleep(payload.seconds)
    return ctx.fence


@handler("SUM", queue="high", timeout=9, retry={"max": 1, "interval": 2})
def sum_up(payload: Sum) -> int:
    return sum(payload.numbers)


@handler("DISCARD")
def discard(payload: dict[str, Any]) -> None:
    raise Discard("not worth another try")


@handler("SNOOZE")
def snooze(payload: dict[str, Any], ctx: Context) -> str:
    if ctx.fence <= payload["times"]:
        raise Snooze(payload.get("seconds", 0.5))
    return "awake"


@handler("RETURN")
def give_back(payload: dict[str, Any]) -> Any:
    return {
        "set": {1, 2},
        "nan": float("nan"),
        "nul": "a\x00b",
        "surrogate": "\ud800",
        "tuple": (1, 2),
    }[payload["what"]]


@handler("RAISE")
def raise_it(payload: dict[str, Any]) -> None:
    raise ValueError("a\x00b\ud800" + "x" * 10_000)


@handler("STUBBORN")
def stubborn(payload: dict[str, Any]) -> None:
    """Swallow every Exception, as careless code does."""
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            pass


@handler("SWALLOW")
def swallow(payload: dict[str, Any]) -> None:
    """Swallow whatever is raised, as no code should."""
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            pass


@handler("LOOK")
def look(payload: dict[str, Any], ctx: Context) -> str:
    """Look whether it was cancelled, and return then, or fail, or snooze."""
    while not ctx.cancelled:
        time.sleep(0.01)
    ctx.progress(50, "cancelled")
    if payload.get("fail"):
        raise ValueError("tidied up")
    if payload.get("snooze"):
        raise Snooze(60)
    return "stopped early"


@handler("DEAF")
def deaf(payload: dict[str, Any]) -> None:
    """Sit in one C call that lets other threads run but never returns to the interpreter."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    ctypes.CDLL(None).sleep(600)


@handler("CRASH")
def crash(payload: dict[str, Any], ctx: Context) -> str:
    if ctx.attempt == 1:
        os._exit(1)
    return "survived"


@handler("COMPUTE")
def compute(payload: dict[str, Any]) -> int:
    """Compute without ever waiting."""
    total, end = 0, time.monotonic() + payload["seconds"]
    while time.monotonic() < end:
        total += 1
    return total


@handler("INTERRUPT")
def interrupt(payload: dict[str, Any]) -> None:
    raise KeyboardInterrupt


@handler("ODD_PROGRESS")
def odd_progress(payload: dict[str, Any], ctx: Context) -> str:
    ctx.progress(Decimal(5), "a\x00b\ud800")  # type: ignore[arg-type]
    ctx.progress(50, {"not": "text"})  # type: ignore[arg-type]
    raise Snooze(Decimal("0.1")) if ctx.fence == 1 else Discard("done")  # type: ignore[arg-type]
