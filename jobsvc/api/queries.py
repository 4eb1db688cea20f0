"""Models of query parameters: which jobs are selected, and which page of them."""

import re
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BeforeValidator, Field, model_validator

from jobsvc.api.known_names import tell_known
from jobsvc.api.paging import CURSOR, read_cursor
from jobsvc.api.requests import Name, Tag, read_time
from jobsvc.api.validation import Query
from jobsvc.jobs import Filter
from jobsvc.states import Status

Cursor = Annotated[str, Field(pattern=CURSOR)]


def _read_status(value: Any) -> Any:
    if isinstance(value, str) and value not in [*Status]:
        raise ValueError(f"there is no status {value[:100]!a}; {tell_known('statuses', value, Status)}")
    return value


class FilterQuery(Query):
    """The query parameters that say which jobs are meant."""

    status: Annotated[list[Annotated[Status, BeforeValidator(_read_status)]], Field(max_length=16)] = []
    type: Name | None = None
    queue: Name | None = None
    tag: Annotated[list[Tag], Field(max_length=16)] = []
    created_after: Annotated[datetime, BeforeValidator(read_time)] | None = None
    created_before: Annotated[datetime, BeforeValidator(read_time)] | None = None

    def filter(self) -> Filter:
        """Return the filter for these parameters."""
        return Filter(self.status, self.type, self.queue, self.tag, self.created_after, self.created_before)


class SomeJobsQuery(FilterQuery):
    """At least one of them: it would be too easy to mean all jobs by mistake."""

    @model_validator(mode="after")
    def _at_least_one(self) -> "SomeJobsQuery":
        if not self.model_fields_set:
            raise ValueError("say which jobs are meant, by at least one query parameter")
        return self


def _read_count(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch("[0-9]{1,9}", value):
        raise ValueError("must be a whole number")
    return value


class ListQuery(FilterQuery):
    """The query parameters of GET /jobs."""

    limit: Annotated[int, Field(ge=1, le=200), BeforeValidator(_read_count)] = 50
    cursor: Annotated[UUID, BeforeValidator(read_cursor, json_schema_input_type=Cursor)] | None = None
