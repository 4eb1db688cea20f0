"""Rate limits, used by handlers and API requests."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_RATE_LIMIT = 100_000
"""Largest number of starts that a rate limit allows in one period."""

MIN_PER, MAX_PER = 0.1, 86_400.0
"""Shortest and longest period of a rate limit, in seconds."""

MAX_KEY = 255


class RateLimitPolicy(BaseModel):
    """At most `limit` attempts of jobs with this key start in any `per` seconds, over all workers and queues."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)

    key: Annotated[str, Field(min_length=1, max_length=MAX_KEY)]
    """Starts of all jobs with the key count, of any type, queue and limit."""
    limit: Annotated[int, Field(ge=1, le=MAX_RATE_LIMIT)]
    """Starts in one period."""
    per: Annotated[float, Field(ge=MIN_PER, le=MAX_PER, allow_inf_nan=False)]
    """Length of the period in seconds."""
