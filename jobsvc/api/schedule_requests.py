"""Models of request bodies for schedules."""

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    field_validator,
    model_validator,
)

from jobsvc.api.fields import MAX_NAME, JobId
from jobsvc.api.requests import JobRequest
from jobsvc.jobs import cron
from jobsvc.jobs.schedules import NewSchedule


def _no_fixed_start(run_at: Any) -> None:
    if run_at is not None:
        raise ValueError("is not allowed in a schedule: each tick starts a job; use delay to start it later")


def _no_dependencies(value: Any) -> Any:
    if value:
        raise ValueError("is not allowed in a schedule, since its jobs would all depend on the same ones")
    return value


class ScheduledJob(JobRequest):
    """The job of a schedule: the body of POST /jobs without `runAt`, `dependsOn` and `onDependencyFailure`."""

    run_at: Annotated[None, BeforeValidator(_no_fixed_start)] = None
    """Not allowed: each tick starts a job."""
    depends_on: Annotated[list[JobId], Field(max_length=0), BeforeValidator(_no_dependencies)] = []
    """Not allowed: all jobs of the schedule would depend on the same ones."""
    on_dependency_failure: Annotated[None, BeforeValidator(_no_dependencies)] = None
    """Not allowed, as dependsOn."""
    _given: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_what_was_given(
        cls, given: dict[str, Any], validate: ModelWrapValidatorHandler["ScheduledJob"]
    ) -> "ScheduledJob":
        job = validate(given)
        job._given = given
        return job


class ScheduleRequest(BaseModel):
    """The body of PUT /schedules/:name."""

    model_config = ConfigDict(strict=True, extra="forbid")

    cron: Annotated[str, Field(max_length=MAX_NAME, json_schema_extra={"format": "cron"})]
    timezone: Annotated[str, Field(json_schema_extra={"format": "time-zone"})] = "UTC"
    enabled: bool = True
    job: ScheduledJob

    @field_validator("cron")
    @classmethod
    def _ticks(cls, expression: str) -> str:
        cron.check(expression)
        return expression

    @field_validator("timezone")
    @classmethod
    def _exists(cls, name: str) -> str:
        cron.check_timezone(name)
        return name

    def resolve(self, name: str) -> NewSchedule:
        """Return the schedule to store."""
        return NewSchedule(
            name=name,
            cron=self.cron,
            timezone=self.timezone,
            enabled=self.enabled,
            job=self.job._given,
            new_job=self.job.resolve(),
            retry=self.job.backoff_policy(),
        )
