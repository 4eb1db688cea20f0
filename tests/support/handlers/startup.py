"""Handlers whose texts try to forge lines of the log."""

import logging

from jobsvc import handler

FORGED = "a\n12:00:00 ERROR   x: forged\r\x1b[2J\x9b2J\u2028\u202e"


@handler("FORGE", retry={"max": 0})
def forge(payload: dict) -> None:  # type: ignore[type-arg]
    logging.getLogger(FORGED).error(FORGED)
    try:
        raise LookupError(FORGED)
    except LookupError:
        logging.exception("caught %s", FORGED)
    raise type(f"Odd{FORGED}", (Exception,), {})(FORGED)
