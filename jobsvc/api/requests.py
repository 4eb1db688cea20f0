"""Models of request bodies: jobs and batches. For schedules see `schedule_requests`."""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from jobsvc import handlers
from jobsvc.api.fields import (
    EMPTY,
    NOT_BOTH_TIMES,
    NULL,
    JobId,
    Name,
    Tag,
    Url,
    check_queue,
    check_times,
    payload_problems,
    read_time,
)
from jobsvc.api.known_names import describe_known
from jobsvc.api.validation import INNER
from jobsvc.config import settings
from jobsvc.errors import Problem
from jobsvc.handlers import DELIVERY, Handler
from jobsvc.handlers.rate_limit import RateLimitPolicy
from jobsvc.handlers.retry_policy import Delay, Duration, RetryPolicy
from jobsvc.jobs import MAX_CONCURRENCY_LIMIT, MAX_DEPENDENCIES, Dependency, NewJob

DEFAULT_TYPE = "TEST_JOB"
NO_REFS: Mapping[str, int] = MappingProxyType({})


def _typed(handler: Handler, describe: GetJsonSchemaHandler) -> dict[str, Any]:
    """Return the JSON Schema of a job of this handler's type."""
    try:
        payload = describe(handler.payload.core_schema)
        required = describe.resolve_ref_schema(payload).get("required")
    except PydanticInvalidForJsonSchema:
        payload, required = {"type": "object"}, None
    return {
        "description": handler.description or "",
        "properties": {"type": {"const": handler.name}, "payload": payload},
        "required": ([] if handler.name == DEFAULT_TYPE else ["type"]) + (["payload"] if required else []),
    }


class JobRequest(BaseModel):
    """The body of POST /jobs. Durations are seconds."""

    model_config = ConfigDict(alias_generator=to_camel, strict=True, extra="forbid", use_attribute_docstrings=True)

    type: str = DEFAULT_TYPE
    payload: dict[str, Any] = Field(default_factory=dict, json_schema_extra={"default": {}})
    queue: str | None = None
    """The handler's queue if none is given."""
    delay: Delay | None = None
    """Seconds before the first attempt; or give runAt."""
    run_at: Annotated[datetime, BeforeValidator(read_time)] | None = None
    """Time before which no attempt starts."""
    retry: RetryPolicy | None = None
    timeout: Duration | None = None
    """Seconds for each attempt."""
    expires_in: Duration | None = None
    """Seconds within which the first attempt must start."""
    unique_key: Name | None = None
    """At most one unfinished job of a type has this key."""
    on_conflict: Literal["return", "reject", "replace"] | None = None
    """If another unfinished job has the uniqueKey: return its id (default), reject this job, or replace its values."""
    tags: Annotated[list[Tag], Field(max_length=16)] = EMPTY
    webhook_url: Url | None = None
    """Called each time the job ends."""
    concurrency_key: Name | None = None
    """At most concurrencyLimit jobs with this key run at once."""
    concurrency_limit: Annotated[int, Field(ge=1, le=MAX_CONCURRENCY_LIMIT)] | None = None
    rate_limit: RateLimitPolicy | None = None
    """The handler's rate limit if none is given."""
    depends_on: Annotated[list[JobId], Field(max_length=MAX_DEPENDENCIES)] = EMPTY
    """Ids of jobs that must be COMPLETED first."""
    on_dependency_failure: Literal["cancel", "run"] | None = None
    """What a FAILED or CANCELLED dependency does to this job: cancel it (the default), or let it run."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, describe: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the rules of the validators below to the JSON Schema: each type with its own payload."""
        schema = describe.resolve_ref_schema(describe(core))
        known = [one for one in map(handlers.find, handlers.names()) if one and one.name != DELIVERY]
        schema["properties"]["queue"]["anyOf"][0]["enum"] = settings().JOBSVC_QUEUES
        schema["anyOf"] = [_typed(one, describe) for one in known]
        schema["allOf"] = [
            NOT_BOTH_TIMES,
            {
                "anyOf": [
                    {"properties": {"concurrencyLimit": NULL}},
                    {"properties": {"concurrencyKey": {"type": "string"}}, "required": ["concurrencyKey"]},
                ]
            },
            {
                "anyOf": [
                    {"properties": {"onConflict": NULL}},
                    {"properties": {"uniqueKey": {"type": "string"}}, "required": ["uniqueKey"]},
                ]
            },
            {"anyOf": [{"properties": {"onDependencyFailure": NULL}}, {"required": ["dependsOn"]}]},
        ]
        return schema

    @model_validator(mode="after")
    def _go_together(self) -> "JobRequest":
        check_times(self.delay, self.run_at)
        if self.concurrency_limit is not None and self.concurrency_key is None:
            raise ValueError("concurrencyLimit needs a concurrencyKey")
        if self.on_conflict is not None and self.unique_key is None:
            needed = Problem("/onConflict", "needs a uniqueKey")
            raise PydanticCustomError("needs_key", "onConflict needs a uniqueKey", {INNER: [needed]})
        if self.on_dependency_failure is not None and "depends_on" not in self.model_fields_set:
            needed = Problem("/onDependencyFailure", "needs dependsOn")
            raise PydanticCustomError("no_dependencies", "onDependencyFailure needs dependsOn", {INNER: [needed]})
        return self

    @field_validator("type")
    @classmethod
    def _known_type(cls, name: str) -> str:
        if handlers.find(name) is None or name == DELIVERY:
            raise ValueError(f"there is no type {name[:100]!a}; {describe_known('types', name, handlers.names())}")
        return name

    @field_validator("queue")
    @classmethod
    def _known_queue(cls, name: str | None) -> str | None:
        return name if name is None else check_queue(name)

    @field_validator("webhook_url")
    @classmethod
    def _signed(cls, url: str | None) -> str | None:
        if url is not None and not settings().JOBSVC_WEBHOOK_SECRETS:
            raise ValueError("needs JOBSVC_WEBHOOK_SECRETS to be set, to sign webhooks")
        return url

    @model_validator(mode="after")
    def _fitting_payload(self) -> "JobRequest":
        handler = handlers.find(self.type)
        assert handler is not None
        if found := payload_problems(handler, self.payload):
            raise PydanticCustomError("payload", "the payload doesn't fit the type", {INNER: found})
        return self

    def backoff_policy(self) -> RetryPolicy | None:
        """Return the retry policy with all defaults if its intervals are drawn for each job, else None."""
        handler = handlers.find(self.type)
        assert handler is not None
        policy = handler.retry_policy(self.retry)
        return policy if policy.backoff else None

    def dependencies(self, positions: Mapping[str, int]) -> list[Dependency]:
        """Return what the job depends on; positions: of the jobs of the same request, by their refs."""
        return [positions[name] if name in positions else UUID(name) for name in self.depends_on]

    def resolve(self, positions: Mapping[str, int] = NO_REFS) -> NewJob:
        """Return the job to store, with its handler's defaults; positions: see `dependencies`."""
        handler = handlers.find(self.type)
        assert handler is not None
        rate = self.rate_limit or handler.rate_limit
        return NewJob(
            type=self.type,
            queue=self.queue or handler.default_queue,
            payload=self.payload,
            timeout=self.timeout if self.timeout is not None else handler.timeout,
            retry_intervals=handler.retry_intervals(self.retry),
            delay=self.delay,
            run_at=self.run_at,
            expires_in=self.expires_in,
            unique_key=self.unique_key,
            on_conflict=self.on_conflict,
            tags=self.tags or None,
            concurrency_key=self.concurrency_key,
            concurrency_limit=(self.concurrency_limit or 1) if self.concurrency_key else None,
            rate_key=rate.key if rate else None,
            rate_limit=rate.limit if rate else None,
            rate_per=rate.per if rate else None,
            webhook_url=self.webhook_url,
            depends_on=self.dependencies(positions) if self.depends_on else None,
            on_dependency_failure=(self.on_dependency_failure or "cancel") if self.depends_on else None,
        )


_PLAIN_FIELDS = {"type", "payload", "queue"}


def plain_job(value: Any) -> NewJob | None:
    """Return the job in this body if it is valid and has no field but type, payload and queue; else None.

    The same as `JobRequest` returns, in half of the time: the rest is made once.
    """
    if type(value) is not dict or not value.keys() <= _PLAIN_FIELDS:
        return None
    type_, queue, payload = value.get("type", DEFAULT_TYPE), value.get("queue"), value.get("payload", {})
    if type(type_) is not str or type(payload) is not dict or (queue is not None and type(queue) is not str):
        return None
    if (found := _without_payload(type_, queue)) is None:
        return None
    handler, job = found
    try:
        handler.parse(payload)
    except ValidationError:
        return None
    return NewJob._make((*job[:2], payload, *job[3:]))


@lru_cache(maxsize=1024)
def _without_payload(type_: str, queue: str | None) -> tuple[Handler, NewJob] | None:
    """Return the handler of a type and a job of it; None if there is no such type or queue, or if backoff is drawn."""
    handler = handlers.find(type_)
    if handler is None or type_ == DELIVERY or handler.retry.backoff or queue not in (None, *settings().JOBSVC_QUEUES):
        return None
    return handler, JobRequest.model_construct(type=type_, queue=queue).resolve()
