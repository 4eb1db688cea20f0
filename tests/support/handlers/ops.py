"""Handlers that leave processes, for the tests of how programs are run."""

import subprocess

from pydantic import BaseModel

from jobsvc import Context, handler


class Payload(BaseModel):
    """Nothing."""


@handler("LEAVES_GRANDCHILD")
def leaves_grandchild(payload: Payload, ctx: Context) -> None:
    """Start a process whose parent ends before it does."""
    subprocess.run(["sh", "-c", "sleep 0.3 &"], check=True)
