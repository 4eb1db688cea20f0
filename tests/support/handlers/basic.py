"""Handlers that behave badly, each in one way, and one that notes its runs."""

import ctypes
import logging
import os
import resource
import signal
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel

from jobsvc import Context, Discard, RetryAfter, Snooze, handler


class Note(BaseModel):
    path: str
    seconds: float = 0
    fails: int = 0
    silent: bool = False


class Sum(BaseModel):
    numbers: list[int]


@handler("NOTE")
def note(payload: Note, ctx: Context) -> int | None:
    """Append a line for every run, so that a test can count them; fail the first `fails` attempts."""
    _note(payload.path, ctx)
    time.sleep(payload.seconds)
    if ctx.attempt <= payload.fails:
        raise RuntimeError(f"attempt {ctx.attempt} fails, as asked")
    return None if payload.silent else ctx.fence


@handler("SUM", queue="high", timeout=9, retry={"max": 1, "interval": 2})
def sum_up(payload: Sum) -> int:
    return sum(payload.numbers)


@handler("BACKOFF", retry={"max": 4, "backoff": {"initial": 0.5, "factor": 3, "max": 60}})
def back_off(payload: dict[str, Any], ctx: Context) -> None:
    if ctx.attempt <= payload.get("fails", 0):
        raise RuntimeError("fails, as asked")


class Gathered(BaseModel):
    only: str | None = None
    seconds: float = 0
    forks: bool = False


@handler("GATHER")
def gather(payload: Gathered, ctx: Context) -> dict[str, Any]:
    """Return the results of the dependencies, or of one of them."""
    time.sleep(payload.seconds)
    found = ctx.dependencies
    if payload.forks:
        assert found
        if not (child := os.fork()):
            os._exit(len(found))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == len(found)
    if payload.only:
        return {payload.only: found[payload.only]}
    assert len(found) == len(list(found))
    return dict(found)


@handler("DISCARD")
def discard(payload: dict[str, Any]) -> None:
    raise Discard("not worth another try")


@handler("SNOOZE")
def snooze(payload: dict[str, Any], ctx: Context) -> str:
    if ctx.fence <= payload["times"]:
        raise Snooze(payload.get("seconds", 0.5))
    return "awake"


@handler("RETRY_AFTER")
def retry_after(payload: dict[str, Any], ctx: Context) -> str:
    if ctx.attempt == 1:
        raise RetryAfter(payload["seconds"])
    return "served"


@handler("RETURN")
def give_back(payload: dict[str, Any], ctx: Context) -> Any:
    return {
        "set": {1, 2},
        "nan": float("nan"),
        "nul": "a\x00b",
        "surrogate": "\ud800",
        "tuple": (1, 2),
        "context": [ctx.job_id, ctx.attempt, ctx.max_attempts, ctx.fence, ctx.traceparent, ctx.cancelled],
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
    """Swallow every exception, as no code should."""
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            pass


@handler("CHECK_CANCEL")
def check(payload: dict[str, Any], ctx: Context) -> str:
    """Poll until a cancel is requested; then return, fail or snooze."""
    while not ctx.cancelled:
        time.sleep(0.01)
    ctx.progress(50, "cancelled")
    if payload.get("fail"):
        raise ValueError("tidied up")
    if payload.get("snooze"):
        raise Snooze(60)
    return "stopped early"


@handler("BLOCK_SIGNALS")
def block_signals(payload: dict[str, Any], ctx: Context) -> None:
    """Sit in one C call that lets other threads run but never returns to the interpreter."""
    ctx.log("blocks all signals from now on")
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


@handler("TALK")
def talk(payload: dict[str, Any], ctx: Context) -> str:
    """Log in every way there is, then end as the payload says."""
    library = logging.getLogger("some.library")
    ctx.log("by ctx.log, with a \x00 and a \ud800")
    library.info("by a %s", "library")
    logging.getLogger().warning("by the root logger")
    library.debug("too low")
    logging.getLogger("jobsvc.worker").warning("of our own")
    logging.getLogger("rq.worker").warning("of RQ's")
    thread = threading.Thread(target=library.error, args=("from a thread",))
    thread.start()
    thread.join()
    try:
        raise LookupError("caught")
    except LookupError:
        library.exception("with its traceback")
    for number in range(payload.get("lines", 0)):
        ctx.log(f"line {number}")
    if ctx.fence == 1 and "end" in payload:
        {"raise": _fail, "discard": discard, "snooze": _snooze, "hang": stubborn}[payload["end"]](payload)
    return "said"


def _fail(payload: dict[str, Any]) -> None:
    raise ValueError("no more to say")


def _snooze(payload: dict[str, Any]) -> None:
    raise Snooze(0.1)


class Kill(BaseModel):
    whom: list[str]
    signal: int = signal.SIGKILL
    notes: str
    until: str = ""


@handler("KILL_PROCESSES")
def kill_processes(payload: Kill, ctx: Context) -> str:
    """Send a signal, on the first run, to the worker, its pool or this process, and go on until there is a file."""
    _note(payload.notes, ctx)
    if ctx.fence == 1:
        # A core dump would take long, and stay.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        worker = psutil.Process(os.getppid())
        pids = {"child": os.getpid(), "worker": worker.pid, "pool": worker.ppid()}
        for whom in payload.whom:
            os.kill(pids[whom], payload.signal)
        if payload.signal == signal.SIGKILL:
            time.sleep(60)
    _wait_for(payload.until)
    return "survived"


@handler("UNTIL")
def until(payload: dict[str, str]) -> int:
    """Go on until there is a file; returns the process."""
    _wait_for(payload["path"])
    return os.getpid()


@handler("MEET")
def meet(payload: dict[str, Any], ctx: Context) -> int:
    """Wait until `number` of these run at once; returns the process."""
    Path(payload["folder"], ctx.job_id).touch()
    while len(os.listdir(payload["folder"])) < payload["number"]:
        time.sleep(0.01)
    return os.getpid()


@handler("WHERE")
def where(payload: dict[str, Any], ctx: Context) -> int:
    """Return the process id, after failing `fails` attempts that each note theirs."""
    return _where(payload, ctx)


@handler("WHERE_ISOLATED", isolated=True)
def where_isolated(payload: dict[str, Any], ctx: Context) -> int:
    """The same in a process of its own."""
    return _where(payload, ctx)


def _where(payload: dict[str, Any], ctx: Context) -> int:
    if ctx.attempt <= payload.get("fails", 0):
        raise RuntimeError(f"process {os.getpid()}")
    if ctx.attempt <= payload.get("crashes", 0):
        os._exit(1)
    return os.getpid()


def _note(path: str, ctx: Context) -> None:
    with Path(path).open("a") as file:
        file.write(f"{ctx.job_id} {ctx.attempt} {ctx.fence}\n")


def _wait_for(path: str) -> None:
    while path and not Path(path).exists():
        time.sleep(0.01)


@handler("LIMITED", rate_limit={"limit": 3, "per": 0.5})
def limited(payload: dict[str, Any]) -> None:
    """At most 3 starts in half a second."""


@handler("SHARED", rate_limit={"key": "shared", "limit": 5, "per": 60})
def shared(payload: dict[str, Any]) -> None:
    """A rate limit with a key that other types may have, too."""
