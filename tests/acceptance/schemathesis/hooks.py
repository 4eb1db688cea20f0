"""Rules that the document states only in words, so that valid generated requests are accepted."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import schemathesis
from hypothesis import strategies as st

# runAt, createdAfter and createdBefore: from 1970 to a year from now.
_times = st.datetimes(datetime(1970, 1, 2), datetime.now() + timedelta(days=364), timezones=st.just(UTC))
schemathesis.openapi.format("date-time", _times.map(datetime.isoformat))

# The URL of an HTTP_REQUEST: not to a private address.
schemathesis.openapi.format("uri", st.from_regex(r"https://example\.com/[a-z0-9]{0,20}", fullmatch=True))

# A schedule's expression and time zone.
schemathesis.openapi.format("cron", st.from_regex(r"([0-5]?[0-9]|\*/[1-9]) ([01]?[0-9]|\*) \* \* \*", fullmatch=True))
schemathesis.openapi.format("time-zone", st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]))


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Use no key twice, since one that was used with another body is refused, and name no job that is not there."""
    if not (case.meta and case.meta.generation.mode.is_positive):
        return
    if case.headers and "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = uuid4().hex
    if isinstance(case.body, dict) and case.path in ("/jobs", "/jobs/batch"):
        for n, job in enumerate(case.body.get("jobs") or [case.body]):
            if isinstance(job, dict):
                job.pop("dependsOn", None)
                job.pop("onDependencyFailure", None)
                if "ref" in job:
                    job["ref"] = f"job {n}"
