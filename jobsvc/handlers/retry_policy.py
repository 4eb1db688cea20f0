"""Types for durations and retries, used by handlers and API requests."""

import random
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

YEAR = 366 * 86400

Delay = Annotated[float, Field(ge=0, le=YEAR, allow_inf_nan=False)]
"""Seconds to wait: 0 to a year."""

Duration = Annotated[float, Field(gt=0, le=YEAR, allow_inf_nan=False)]
"""A time limit in seconds: above 0, up to a year."""


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


_Intervals = Annotated[list[Delay], Field(min_length=1, max_length=100)]


class BackoffPolicy(BaseModel):
    """Intervals that grow: the n-th is min(initial * factor^(n-1), max) seconds, times a random number in 1 ± jitter.

    No interval is longer than a year.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)

    initial: Annotated[float, Field(ge=0.001, le=YEAR, allow_inf_nan=False)]
    """Seconds before the first retry."""
    factor: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = 2.0
    """By which each interval is longer than the one before."""
    max: Delay = 3600.0
    """Seconds up to which the intervals grow."""
    jitter: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.1
    """Largest random deviation, as a part of the interval."""

    def draw(self, count: int) -> list[float]:
        """Return `count` intervals in whole microseconds, which is how exactly Postgres keeps times."""
        grown = [min(self.initial * self.factor**retry, self.max) for retry in range(count)]
        low, high = 1 - self.jitter, 1 + self.jitter
        return [min(round(seconds * random.uniform(low, high), 6), YEAR) for seconds in grown]  # noqa: S311


class RetryPolicy(BaseModel):
    """How often, and after which intervals (seconds), a failed attempt is followed by another.

    One interval serves every retry. A list that is shorter than `max` repeats its last value.
    Without `max` a list of several stands for that many retries. Instead of intervals there may be a backoff.
    """

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "anyOf": [{"properties": {"interval": {"type": "null"}}}, {"properties": {"backoff": {"type": "null"}}}]
        },
    )

    max: int | None = Field(None, ge=0, le=100)
    interval: Annotated[_Intervals, BeforeValidator(_as_list, json_schema_input_type=Delay | _Intervals)] | None = None
    backoff: BackoffPolicy | None = None

    @model_validator(mode="after")
    def _has_one_plan(self) -> "RetryPolicy":
        if self.interval is not None and self.backoff is not None:
            raise ValueError("give interval or backoff, not both")
        return self

    def over(self, default: "RetryPolicy") -> "RetryPolicy":
        """Return this policy with missing values taken from `default`: its intervals or backoff if this has neither."""
        plan = self if self.interval or self.backoff else default
        count = len(self.interval) if self.interval and len(self.interval) > 1 else default.max
        return RetryPolicy(
            max=count if self.max is None else self.max,
            interval=plan.interval,
            backoff=plan.backoff,
        )

    def intervals(self) -> list[float]:
        """Return one interval (seconds) for each retry, drawn anew for each call if there is a backoff.

        The policy must have `max`, and `interval` or `backoff`.
        """
        assert self.max is not None
        if self.backoff is not None:
            return self.backoff.draw(self.max)
        assert self.interval is not None
        return [self.interval[min(retry, len(self.interval) - 1)] for retry in range(self.max)]


DEFAULT_RETRY = RetryPolicy(max=3, interval=[1, 5, 25])
DEFAULT_TIMEOUT = 180.0
