"""How a process logs: readable lines on stderr."""

import logging


def set_up() -> None:
    """One line for one event: the time, who says it, what it says."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    # Our own line says how an attempt ended; RQ would add four, and each traceback, which Postgres keeps.
    for name in ("rq.worker", "rq.job", "rq.scheduler"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
