"""A handler that notes when and where each run of it starts and ends, on the clock that no host changes."""

import os
import time
from pathlib import Path

from pydantic import BaseModel

from jobsvc import Context, handler


class Span(BaseModel):
    path: str
    """Gets a line for each start and end: word, job, fence, host, monotonic seconds, time of day."""
    seconds: float = 0.05
    until: str = ""
    """Run on until there is a file of this name."""


@handler("SPAN", timeout=300, retry={"max": 20, "interval": 0.5})
def span(payload: Span, ctx: Context) -> int:
    """Run for some time; the result is the fence of this start."""
    _note(payload.path, "start", ctx)
    time.sleep(payload.seconds)
    while payload.until and not Path(payload.until).exists():
        time.sleep(0.05)
    _note(payload.path, "end", ctx)
    return ctx.fence


def _note(path: str, word: str, ctx: Context) -> None:
    line = f"{word} {ctx.job_id} {ctx.fence} {os.environ['TEST_HOST']} {time.monotonic():.3f} {time.time():.3f}\n"
    with open(path, "a") as file:
        file.write(line)  # one write, which a file opened for appending takes whole
