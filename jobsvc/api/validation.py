"""Parses requests into models; each problem found is reported with a pointer to it."""

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar, get_origin
from uuid import UUID

from flask import abort, request
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from jobsvc import strict_json
from jobsvc.api.known_names import MAX_SHOWN, describe_known, known_fields
from jobsvc.config import settings
from jobsvc.errors import InvalidInput, JobNotFound, Problem, QueueNotFound
from jobsvc.strict_json import clean, escape

MAX_PROBLEMS = 20
"""Maximum number of problems reported for a request."""

Schema = TypeVar("Schema", bound=BaseModel)


def body(schema: type[Schema]) -> Schema:
    """Return the request's JSON body as this model; a missing body is read as `{}`.

    Aborts with 400, 413 and 415; raises NotJson and InvalidInput.
    """
    return read(schema, json_body())


def read(schema: type[Schema], value: Any) -> Schema:
    """Return a JSON value as this model. Raises InvalidInput, also if Postgres can't store the value."""
    return read_storable(schema, check_storable(value))


def read_storable(schema: type[Schema], value: Any) -> Schema:
    """Return a JSON value that `check_storable` has accepted as this model. Raises InvalidInput."""
    if not isinstance(value, dict):
        raise InvalidInput([Problem("", "the body must be an object")])
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        raise InvalidInput(problems(error, value, lambda: _json_schema(schema))) from None


@lru_cache
def _json_schema(schema: type[BaseModel]) -> dict[str, Any]:
    return schema.model_json_schema()


def check_storable(value: Any) -> Any:
    """Return a JSON value if Postgres can store it. Raises InvalidInput."""
    if found := list(islice(strict_json.unstorable(value), MAX_PROBLEMS)):
        raise InvalidInput(found)
    return value


def json_body() -> Any:
    """Return the request's parsed body; `{}` without one. Aborts with 400, 413 and 415; raises NotJson."""
    raw = _whole_body()
    if not raw:
        return {}
    media_type = request.mimetype
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        abort(415, "Send the body as application/json.")
    return strict_json.parse(raw)


def _whole_body() -> bytes:
    """Return the complete body; never a part of it, which could be valid with another meaning."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        abort(415, "Send the body without a content coding.")
    raw = request.get_data()
    if len(raw) > settings().JOBSVC_MAX_BODY_BYTES:
        abort(413)
    # A dropped connection reads as the end of a body, so an empty body must have been announced as empty.
    announced = request.content_length
    if (announced is not None and announced != len(raw)) or ("Transfer-Encoding" in request.headers and not raw):
        abort(400, "The body is shorter than announced.")
    return raw


def problems(error: ValidationError, value: Any, schema: Callable[[], dict[str, Any]], base: str = "") -> list[Problem]:
    """Return the first MAX_PROBLEMS that pydantic found in `value`. base: the pointer to `value` in the body.

    schema: returns the JSON Schema of the value, to list the known fields if one is unknown.
    """
    found: list[Problem] = []
    for one in error.errors(include_url=False, include_input=False):
        pointer = _pointer(one, value)
        detail = _detail(one)
        if one["type"] in _UNKNOWN_FIELD:
            detail += (
                f"; {describe_known('fields', str(one['loc'][-1]), known_fields(schema(), pointer.rpartition('/')[0]))}"
            )
        inner = one.get("ctx", {}).get(INNER) or [Problem("", detail)]
        found += [Problem(base + pointer + problem.pointer, problem.detail) for problem in inner]
        if len(found) >= MAX_PROBLEMS:
            break
    return found[:MAX_PROBLEMS]


INNER = "problems"
"""Key in the context of a validator's PydanticCustomError for its problems, with pointers relative to its value."""


_UNKNOWN_FIELD = ("extra_forbidden", "unexpected_keyword_argument")
"""pydantic's error types for a field that a model or a dataclass doesn't have."""


def _pointer(found: ErrorDetails, value: Any) -> str:
    """Return pydantic's location as an RFC 6901 pointer, without names of union members: the value has none."""
    pointer = ""
    for part in found["loc"]:
        inside = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
        if part in inside:
            value = inside[part]
        elif found["type"] != "missing" or part != found["loc"][-1]:
            continue
        pointer += f"/{escape(str(part))}"
    return pointer


_NOT_AN_OBJECT = ("dict_type", "model_type", "dataclass_type")
"""pydantic's error types for another value than an object; their messages name Python's classes."""


def _detail(found: ErrorDetails) -> str:
    if found["type"] in _NOT_AN_OBJECT:
        return "input should be an object"
    message = found["msg"].removeprefix("Value error, ")
    if found["type"] == "too_long":
        message = message.replace(" after validation", "")
    return message[:1].lower() + message[1:]


class Query(BaseModel):
    """The query parameters of a request. A subclass names them; one that may be repeated is a list."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", use_attribute_docstrings=True)


Parameters = TypeVar("Parameters", bound=Query)


def query(schema: type[Parameters]) -> Parameters:
    """Return the request's query parameters as this model.

    Raises InvalidInput for one that is unknown, has an invalid value, or is repeated without being a list.
    """
    known = {str(field.alias): get_origin(field.annotation) is list for field in schema.model_fields.values()}
    given: dict[str, Any] = {}
    found: list[Problem] = []
    for name, values in request.args.lists():
        if name not in known:
            shown = clean(name[:MAX_SHOWN])
            detail = f"there is no query parameter {shown!a} here; {describe_known('query parameters', shown, known)}"
            found.append(Problem("", detail, shown))
        elif len(values) > 1 and not known[name]:
            found.append(Problem("", "is given more than once", name))
        else:
            given[name] = values if known[name] else values[0]
    found += [Problem("", one.detail, one.pointer.split("/")[1]) for one in strict_json.unstorable(given)]
    if found:
        raise InvalidInput(found[:MAX_PROBLEMS])
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[:MAX_PROBLEMS]
        raise InvalidInput(
            [Problem("", _detail(one), str(one["loc"][0]) if one["loc"] else "") for one in wrong]
        ) from None


# UUID() also accepts other spellings, such as urn:uuid:…; the routes with <uuid:job_id> don't.
ID = re.compile("[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


def read_id(text: str) -> UUID:
    """Return the job id in a path, a UUID with hyphens. Raises JobNotFound for anything else."""
    if not ID.fullmatch(text):
        raise JobNotFound(f"{text[:100]!a} is not the id of a job")
    return UUID(text)


def known_queue(name: str) -> str:
    """Return the name of a queue that is served. Raises QueueNotFound for any other."""
    served = settings().JOBSVC_QUEUES
    if name not in served:
        raise QueueNotFound(f"there is no queue {name[:100]!a}; {describe_known('queues', name, served)}")
    return name
