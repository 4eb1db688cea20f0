"""Handlers for the tests of slow clients."""

import time

from pydantic import BaseModel, field_validator

from jobsvc import handler


class SlowlyChecked(BaseModel):
    """A payload whose check takes as long as it says."""

    seconds: float

    @field_validator("seconds")
    @classmethod
    def _wait(cls, seconds: float) -> float:
        time.sleep(seconds)
        return seconds


@handler("SLOWLY_CHECKED")
def slowly_checked(payload: SlowlyChecked) -> None:
    """Do nothing."""
