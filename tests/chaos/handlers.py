"""The handlers of the chaos run, and the journal of its runs, which neither Postgres nor Redis can lose."""

import asyncio
import json
import os
import time

from pydantic import BaseModel

from jobsvc import Context, handler
from tests.chaos.misbehaviour import FAILURES, MISBEHAVIOUR, ChildReturns, sleep_through

JOURNAL = "CHAOS_JOURNAL"
"""The environment variable with the journal's path."""


class Plan(BaseModel):
    """The behaviour of an attempt. odd: a misbehaviour; raises: a kind of failure; mark: identifies the payload."""

    seconds: float = 0
    failures: int = 0
    odd: str | None = None
    raises: str = "plain"
    stubborn: bool = False
    mark: int = 0


@handler("CHAOS")
def chaos(payload: Plan, ctx: Context) -> int:
    """Take `seconds`, fail the first `failures` attempts, and note when each run begins and how it ends."""
    _note(ctx, "begin", payload.mark)
    try:
        if payload.odd:
            MISBEHAVIOUR[payload.odd]()
    except ChildReturns:
        return -1
    (sleep_through if payload.stubborn else time.sleep)(payload.seconds)
    if ctx.attempt <= payload.failures:
        _note(ctx, "raised")
        raise FAILURES[payload.raises]()
    _note(ctx, "returned")
    return ctx.fence


@handler("CHAOS_ASYNC")
async def chaos_async(payload: Plan, ctx: Context) -> int:
    """Do the same without misbehaviour, on an event loop."""
    _note(ctx, "begin", payload.mark)
    await asyncio.sleep(payload.seconds)
    if ctx.attempt <= payload.failures:
        _note(ctx, "raised")
        raise FAILURES[payload.raises]()
    _note(ctx, "returned")
    return ctx.fence


def _note(ctx: Context, event: str, mark: int = 0) -> None:
    line = {
        "job": ctx.job_id,
        "fence": ctx.fence,
        "event": event,
        "at": time.time(),
        "pids": [os.getpid(), os.getppid()],
        "mark": mark,
    }
    # One write to a file opened for appending is one line, however many processes write.
    journal = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(journal, (json.dumps(line) + "\n").encode())
    os.close(journal)
