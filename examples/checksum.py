"""A handler of one's own: `JOBSVC_HANDLERS=examples.checksum make up`, then

curl -X POST http://localhost:3000/jobs -H "Content-Type: application/json" \
     -d '{"type": "CHECKSUM", "payload": {"path": "README.md"}}'
"""

import hashlib
import time
from pathlib import Path

from pydantic import BaseModel

from jobsvc import Context, Discard, Snooze, handler

CHUNK = 1024 * 1024


class Checksum(BaseModel):
    path: str


@handler("CHECKSUM", queue="low", timeout=600, retry={"max": 5, "interval": [5, 30, 120]})
def checksum(payload: Checksum, ctx: Context) -> dict[str, str]:
    """Hash a file; wait for one that is still being written."""
    path = Path(payload.path)
    if not path.is_file():
        raise Discard(f"{path} is no file")  # another attempt wouldn't find it either
    if time.time() - path.stat().st_mtime < 2:
        raise Snooze(2)  # it may still be written to: try again in 2 s
    digest, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            ctx.progress(min(100 * done / size, 100), f"{done} of {size} bytes")
    ctx.log(f"hashed {path}")
    return {"sha256": digest.hexdigest()}
