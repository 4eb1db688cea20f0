"""The benchmark's own handlers."""

import asyncio
import time
from pathlib import Path

from pydantic import BaseModel

from jobsvc import Context, handler


class NoteStart(BaseModel):
    path: str


@handler("NOTE_START")
def note_start(payload: NoteStart, ctx: Context) -> None:
    """Append the job's id and the time, in seconds since 1970."""
    now = time.time()
    with Path(payload.path).open("a") as file:
        file.write(f"{ctx.job_id} {now}\n")


class Sent(BaseModel):
    at: float


@handler("SENT")
def sent(payload: Sent) -> None:
    """Do nothing. `at` is the time at which the job was to be sent, in seconds since 1970."""


class Sleep(BaseModel):
    seconds: float


@handler("SLEEP_ASYNC")
async def sleep_async(payload: Sleep) -> None:
    """Sleep without a thread."""
    await asyncio.sleep(payload.seconds)
