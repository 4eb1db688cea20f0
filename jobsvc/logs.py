"""How a process logs: readable lines on stderr."""

import logging

RQ_LEVEL = "WARNING"
"""RQ's own level: our line says how an attempt ended; RQ would add four."""


def to_stderr() -> None:
    """One line for one event: the time, who says it, what it says. Nothing where root has a handler already."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )


def set_up() -> None:
    """Readable lines, RQ's own the fewest."""
    to_stderr()
    for name in ("rq", "rq.worker"):  # the latter sets itself to INFO
        logging.getLogger(name).setLevel(RQ_LEVEL)
