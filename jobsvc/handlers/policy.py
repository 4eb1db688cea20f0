"""Durations and retries, as a handler declares them and a client asks for them."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

YEAR = 366 * 86400

Wait = Annotated[float, Field(ge=0, le=YEAR, allow_inf_nan=False)]
"""Seconds to wait: none to a year."""

Span = Annotated[float, Field(gt=0, le=YEAR, allow_inf_nan=False)]
"""Seconds that something may take: more than none, to a year."""


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class RetryPolicy(BaseModel):
    """How often, and after which intervals (seconds), a failed attempt is followed by another.

    One interval serves every retry. A list that is shorter than `max` repeats its last value.
    Without `max` a list stands for as many retries as it has values.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    max: int | None = Field(None, ge=0, le=100)
    interval: Annotated[list[Wait], BeforeValidator(_as_list), Field(min_length=1, max_length=100)] | None = None

    def intervals(self, default: "RetryPolicy | None" = None) -> list[float]:
        """Exactly one interval for each retry, what is left open here taken from `default`."""
        base = default or DEFAULT_RETRY
        interval = self.interval or base.interval or DEFAULT_RETRY.interval or [0.0]
        if self.max is not None:
            count = self.max
        elif self.interval is not None and len(self.interval) > 1:
            count = len(self.interval)
        else:
            count = base.max if base.max is not None else len(base.interval or ())
        return [interval[min(turn, len(interval) - 1)] for turn in range(count)]


DEFAULT_RETRY = RetryPolicy(max=3, interval=[1, 5, 25])
DEFAULT_TIMEOUT = 180.0
