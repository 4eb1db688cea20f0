"""Models of query parameters: which jobs are selected, and which page of them; the link to the next page."""

import re
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote, urlencode
from uuid import UUID

from flask import abort, request
from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator, model_validator

from jobsvc import strict_json
from jobsvc.api.fields import Name, Tag, read_time
from jobsvc.api.known_names import describe_known
from jobsvc.api.proxy import quote_prefix
from jobsvc.api.scopes import has_scope
from jobsvc.api.validation import ID, Query
from jobsvc.db.conditions import MAX_ERROR
from jobsvc.jobs import LONGEST_SECONDS, MINUTE, Filter, Walk, longest_step, step_unit
from jobsvc.masking import may_find_secrets
from jobsvc.states import Status

ErrorType = Annotated[str, Field(min_length=1, max_length=MAX_ERROR)]
ErrorLine = Annotated[str, Field(max_length=MAX_ERROR)]

MAX_PAYLOAD = 2000
"""Maximum length in characters of a payload that is searched for: it is part of URLs and of the header Link."""


def read_payload(value: Any) -> dict[str, Any]:
    """Return a payload to search for, from its JSON. Raises ValueError."""
    if not isinstance(value, str) or len(value) > MAX_PAYLOAD:
        raise ValueError(f"must be a JSON object of at most {MAX_PAYLOAD:,} characters")
    try:
        payload = strict_json.parse(value.encode())
    except strict_json.NotJson as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(payload, dict):
        raise ValueError("must be a JSON object")
    for problem in strict_json.unstorable(payload):
        raise ValueError(f"{problem.pointer} {problem.detail}".strip())
    found: dict[str, Any] = payload
    return found


Payload = Annotated[dict[str, Any], BeforeValidator(read_payload), WithJsonSchema({"type": "object"})]


def _read_status(value: Any) -> Any:
    if isinstance(value, str) and value not in [*Status]:
        raise ValueError(f"there is no status {value[:100]!a}; {describe_known('statuses', value, Status)}")
    return value


def _read_id(value: Any) -> UUID:
    if not isinstance(value, str) or not ID.fullmatch(value):
        raise ValueError("is not the id of a job")
    return UUID(value)


JobId = Annotated[UUID, BeforeValidator(_read_id, json_schema_input_type=UUID)]


class FilterQuery(Query):
    """The query parameters that select jobs."""

    status: Annotated[list[Annotated[Status, BeforeValidator(_read_status)]], Field(max_length=16)] = []
    """May be repeated: any of these."""
    type: Name | None = None
    queue: Name | None = None
    tag: Annotated[list[Tag], Field(max_length=16)] = []
    """May be repeated: all of these."""
    created_after: Annotated[datetime, BeforeValidator(read_time)] | None = None
    """Created at this time or later."""
    created_before: Annotated[datetime, BeforeValidator(read_time)] | None = None
    """Created before this time."""
    error_type: ErrorType | None = None
    """Exactly this type of the last error."""
    error: ErrorLine | None = None
    """Exactly this first line of the last error's message, at most 200 characters."""
    payload: Payload | None = None
    """Jobs whose payload contains this JSON object. The search is limited: continue with `nextCursor`."""
    depends_on: JobId | None = None
    """Jobs that have this id in their dependsOn."""

    def filter(self) -> Filter:
        """Return the filter for these parameters. Aborts with 403 if the caller could find out secrets by it."""
        if self.payload is not None and not has_scope("write") and may_find_secrets(self.payload):
            abort(403, "A search for headers, or for a URL with a password, requires a key with the scope write.")
        return Filter(
            statuses=self.status,
            type=self.type,
            queue=self.queue,
            tags=self.tag,
            created_after=self.created_after,
            created_before=self.created_before,
            error_type=self.error_type,
            error=self.error,
            payload=self.payload,
            depends_on=self.depends_on,
        )


def _read_count(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch("[0-9]{1,9}", value):
        raise ValueError("must be a whole number")
    return value


def _read_cursor(value: Any) -> UUID:
    """Return the id that a cursor is: of the last job checked before, but opaque to clients."""
    if not isinstance(value, str) or not ID.fullmatch(value):
        raise ValueError("is not a cursor of this list")
    return UUID(value)


Cursor = Annotated[UUID, BeforeValidator(_read_cursor, json_schema_input_type=UUID)]


class BulkQuery(FilterQuery):
    """The query parameters that select jobs for an action; at least one, so that all are not selected by mistake."""

    cursor: Cursor | None = None
    """`nextCursor` of the response before, with a payload."""

    @model_validator(mode="after")
    def _at_least_one(self) -> "BulkQuery":
        if not self.model_fields_set - {"payload", "cursor"}:
            also = " besides payload" if self.payload is not None else ""
            raise ValueError(f"give at least one query parameter{also} that selects jobs")
        if self.cursor and self.payload is None:
            raise ValueError("a cursor is given only together with payload")
        return self

    def walk(self) -> Walk:
        """Return the walk of a search for the payload, from the cursor on."""
        return Walk(self.cursor)


class PageQuery(Query):
    """The query parameters of a page of jobs."""

    limit: Annotated[int, Field(ge=1, le=200), BeforeValidator(_read_count)] = 50
    cursor: Cursor | None = None
    """`nextCursor` of the page before."""


class ListQuery(FilterQuery, PageQuery):
    """The query parameters of GET /jobs."""


# The default is validated, too: it doesn't suit every window.
_STEP = Field(ge=MINUTE, le=LONGEST_SECONDS, multiple_of=MINUTE, validate_default=True)


class StatsQuery(Query):
    """The query parameters of GET /stats; `window` and `step` are seconds."""

    window: Annotated[int, Field(ge=1, le=LONGEST_SECONDS), BeforeValidator(_read_count)] = 3600
    step: Annotated[int, _STEP, BeforeValidator(_read_count)] = 60
    type: Name | None = None
    queue: Name | None = None

    @field_validator("step")
    @classmethod
    def _suits_the_window(cls, step: int, found: ValidationInfo) -> int:
        if (window := found.data.get("window")) is None:  # its own problem is reported
            return step
        unit, longest = step_unit(window), longest_step(window)
        if step % unit or step > longest:
            raise ValueError(f"must be a multiple of {unit} for a window of {window} seconds, and at most {longest}")
        return step


def link_to_next(cursor: str) -> str:
    """Return a Link header (RFC 8288) to the page at `cursor`, with the other query parameters unchanged."""
    parameters = [(name, value) for name, value in request.args.items(multi=True) if name != "cursor"]
    query = urlencode([*parameters, ("cursor", cursor)], quote_via=quote, safe="")
    return f'<{quote_prefix(request.root_path)}{request.path}?{query}>; rel="next"'
