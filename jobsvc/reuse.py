"""Results that are used again for some time."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def reused(read: Callable[[], Result], seconds: Callable[[float], float]) -> Callable[[], Result]:
    """Return a function that uses the result of `read` again. One thread at a time calls `read`.

    seconds: for how long, by the seconds that `read` took; 0 for not at all.
    """
    lock = threading.Lock()
    used_until = 0.0
    result: Result

    def reuse() -> Result:
        nonlocal used_until, result
        with lock:
            started_at = time.monotonic()
            if started_at >= used_until:
                result = read()
                read_at = time.monotonic()
                used_until = read_at + seconds(read_at - started_at)
            return result

    return reuse
