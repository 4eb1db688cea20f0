"""The body of PATCH /jobs/:id."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from jobsvc import handlers
from jobsvc.api.fields import NOT_BOTH_TIMES, Tag, check_queue, check_times, payload_problems, read_time
from jobsvc.api.known_names import describe_known
from jobsvc.config import settings
from jobsvc.errors import InvalidInput, Problem
from jobsvc.handlers import DELIVERY, Handler
from jobsvc.handlers.retry_policy import Delay, Duration, RetryPolicy
from jobsvc.jobs import Changes

# No default in the JSON Schema: clients that send defaults would change fields which their users did not set.
_NULL: Any = Field(default_factory=lambda: None)


class PatchJob(BaseModel):
    """Changes to a waiting job. Other fields stay as they are; null stands for the default of POST /jobs."""

    model_config = ConfigDict(alias_generator=to_camel, strict=True, extra="forbid", use_attribute_docstrings=True)

    payload: dict[str, Any] | None = _NULL
    """An object that fits the job's type; null is {}."""
    queue: Annotated[str, AfterValidator(check_queue)] | None = _NULL
    delay: Delay | None = _NULL
    """Seconds from now before the next attempt; or give runAt."""
    run_at: Annotated[datetime, BeforeValidator(read_time)] | None = _NULL
    """Time before which the next attempt doesn't start."""
    retry: RetryPolicy | None = _NULL
    """Retries after the next attempt."""
    timeout: Duration | None = _NULL
    """Seconds for each attempt."""
    expires_in: Duration | None = _NULL
    """Seconds from now within which the first attempt must start; null lifts the expiry."""
    tags: Annotated[list[Tag], Field(max_length=16)] | None = _NULL

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, describe: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the rules of the validators to the JSON Schema."""
        schema = describe.resolve_ref_schema(describe(core))
        schema["properties"]["queue"]["anyOf"][0]["enum"] = settings().JOBSVC_QUEUES
        schema["allOf"] = [NOT_BOTH_TIMES]
        return schema

    @model_validator(mode="after")
    def _has_one_time(self) -> "PatchJob":
        check_times(self.delay, self.run_at)
        return self

    def changes(self, job_type: str) -> Changes:
        """Return the changes to a job of this type, with its handler's defaults for null.

        Raises InvalidInput for a payload that doesn't fit the type, and if this process needs its handler but lacks it.
        """
        given = self.model_fields_set
        changes: Changes = {}
        if "payload" in given:
            changes["payload"] = self._checked_payload(job_type)
        if "queue" in given:
            changes["queue"] = self.queue or _handler(job_type, "queue").default_queue
        if given & {"delay", "run_at"}:
            changes["delay"], changes["run_at"] = self.delay, self.run_at
        if "retry" in given:
            changes["retry_intervals"] = _handler(job_type, "retry").retry_intervals(self.retry)
        if "timeout" in given:
            changes["timeout"] = self.timeout or _handler(job_type, "timeout").timeout
        if "expires_in" in given:
            changes["expires_in"] = self.expires_in
        if "tags" in given:
            changes["tags"] = self.tags or None
        return changes

    def _checked_payload(self, job_type: str) -> dict[str, Any]:
        if job_type == DELIVERY:
            raise InvalidInput([Problem("/payload", "the payload of a webhook's delivery can't be changed")])
        payload = self.payload or {}
        if found := payload_problems(_handler(job_type, "payload"), payload):
            raise InvalidInput(found)
        return payload


def _handler(job_type: str, field: str) -> Handler:
    handler = handlers.find(job_type)
    if handler is None:
        known = describe_known("types", job_type, handlers.names())
        raise InvalidInput([Problem(f"/{field}", f"there is no type {job_type[:100]!a} in this process; {known}")])
    return handler
