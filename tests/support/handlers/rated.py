"""A handler with a rate limit."""

from typing import Any

from jobsvc import handler


@handler("RATED", rate_limit={"limit": 5, "per": 60})
def rated(payload: dict[str, Any]) -> None:
    pass
