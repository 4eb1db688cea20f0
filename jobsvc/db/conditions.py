"""Conditions of partial indexes, and expressions of others, in the words that a query must use to match them."""

from jobsvc.states import STARTABLE, WAITING

IS_WAITING = f"status IN ({', '.join(repr(status.value) for status in WAITING)})"
IS_STARTABLE = f"status IN ({', '.join(repr(status.value) for status in STARTABLE)})"
IS_INDEXED_BY_STATUS = "status IN ('SCHEDULED', 'RETRYING', 'BLOCKED', 'FAILED', 'CANCELLED')"
IS_DISPATCHED = f"{IS_STARTABLE} AND dispatched_at >= due_at"
IS_BLOCKED = "status = 'BLOCKED'"
IS_RUNNING = "status = 'PROCESSING'"
IS_UNFINISHED = f"({IS_RUNNING} OR {IS_WAITING})"
HOLDS_UNIQUE_KEY = f"unique_key IS NOT NULL AND {IS_UNFINISHED}"
HAS_CONCURRENCY_KEY = "concurrency_key IS NOT NULL"
HAS_RATE_KEY = "rate_key IS NOT NULL"
HAS_NO_KEY = "concurrency_key IS NULL AND rate_key IS NULL"
LANE_OF_CONCURRENCY_KEY = (
    "concurrency_limit",
    "coalesce(rate_key, '')",
    "coalesce(rate_limit, 0)",
    "coalesce(rate_per, 0)",
    "queue",
)
"""What the withheld jobs of a concurrency key wait for: columns by which they are in lanes, without nulls."""

LANE_OF_RATE_KEY = (
    "rate_limit",
    "rate_per",
    "coalesce(concurrency_key, '')",
    "coalesce(concurrency_limit, 0)",
    "queue",
)
"""What the withheld jobs of a rate key wait for: columns by which they are in lanes, without nulls."""

PAUSED_QUEUES = "(SELECT name FROM queues WHERE paused_at IS NOT NULL)"
IS_TO_DISPATCH = f"{IS_STARTABLE} AND (dispatched_at IS NULL OR dispatched_at < due_at)"
AWAITS_HANDLER_AT = "9999-12-31 00:00:00+00"
"""`dispatched_at` of a job that a worker refused because it has no handler for its type; later than any real time."""

IS_IN_RQ = f"{IS_DISPATCHED} AND dispatched_at < '{AWAITS_HANDLER_AT}'"
IS_WITHHELD = f"{IS_STARTABLE} AND dispatched_at = 'infinity'"
IS_WITHHELD_BY_PAUSE = f"{HAS_NO_KEY} AND {IS_WITHHELD}"
AWAITS_HANDLER = f"{IS_STARTABLE} AND dispatched_at = '{AWAITS_HANDLER_AT}'"
OCCUPIES_SLOT = f"({IS_RUNNING} OR ({IS_IN_RQ}))"
"""Jobs that count against the limit of their concurrency key when another job is to be dispatched."""

MAX_ERROR = 200
"""Number of characters of an error's type, and of the first line of its message, by which jobs are found."""


def first_line(message: str) -> str:
    """Return SQL for the first line of this text, at most MAX_ERROR characters: short enough for an index."""
    return f"split_part(translate(left({message}, {MAX_ERROR}), chr(13), chr(10)), chr(10), 1)"


HAS_ERROR = "error IS NOT NULL"
ERROR_TYPE = f"left(error ->> 'type', {MAX_ERROR})"
ERROR_LINE = first_line("error ->> 'message'")
