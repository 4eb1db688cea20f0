"""Types for durations and retries, used by handlers and API requests."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

YEAR = 366 * 86400

Delay = Annotated[float, Field(ge=0, le=YEAR, allow_inf_nan=False)]
"""Seconds to wait: 0 to a year."""

Duration = Annotated[float, Field(gt=0, le=YEAR, allow_inf_nan=False)]
"""A time limit in seconds: above 0, up to a year."""


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


_Intervals = Annotated[list[Delay], Field(min_length=1, max_length=100)]


class RetryPolicy(BaseModel):
    """How often, and after which intervals (seconds), a failed attempt is followed by another.

    One interval serves every retry. A list that is shorter than `max` repeats its last value.
    Without `max` a list of several stands for that many retries.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    max: int | None = Field(None, ge=0, le=100)
    interval: Annotated[_Intervals, BeforeValidator(_as_list, json_schema_input_type=Delay | _Intervals)] | None = None

    def over(self, default: "RetryPolicy") -> "RetryPolicy":
        """Return this policy with missing values taken from `default`."""
        count = len(self.interval) if self.interval and len(self.interval) > 1 else default.max
        return RetryPolicy(max=count if self.max is None else self.max, interval=self.interval or default.interval)

    def intervals(self) -> list[float]:
        """Return one interval (seconds) for each retry. The policy must have both values set."""
        assert self.max is not None
        assert self.interval is not None
        return [self.interval[min(retry, len(self.interval) - 1)] for retry in range(self.max)]


DEFAULT_RETRY = RetryPolicy(max=3, interval=[1, 5, 25])
DEFAULT_TIMEOUT = 180.0
