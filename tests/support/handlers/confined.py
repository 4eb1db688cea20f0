"""A handler that does what handlers do under systemd's restrictions."""

import ctypes
import multiprocessing
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from jobsvc import Context, handler


def _square(number: int) -> int:
    return number * number


@handler("CONFINED")
def confined(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Fork, start programs and threads, write files, call back from C, and try what is forbidden."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        squares = pool.map(_square, [1, 2, 3])
    kept = Path("kept")
    kept.write_text("x")
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda one, other: 0)
    ctypes.CDLL(None).qsort((ctypes.c_int * 2)(2, 1), 2, 4, compare)
    return {
        "squares": squares,
        "echo": subprocess.run(["sh", "-c", "echo hello | cat"], capture_output=True, text=True).stdout,
        "folder": str(kept.resolve()),
        "uid": os.getuid(),
        "written": [path for path in ("/etc/x", "/usr/x", "/opt/jobsvc/x") if _can_write(path)],
    }


def _can_write(path: str) -> bool:
    try:
        Path(path).write_text("x")
    except OSError:
        return False
    return True
