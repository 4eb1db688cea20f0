"""The OpenAPI document, built from the declarations of the views and the models that they use."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from apispec import APISpec
from flask import Flask
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from werkzeug.routing import Rule

from jobsvc import __version__
from jobsvc.api.dashboard import is_dashboard
from jobsvc.api.error_examples import example
from jobsvc.api.job_schemas import name_alternatives, public_names, rename, title_of
from jobsvc.api.operation import Operation, Reply, operation_of
from jobsvc.api.responses import JobIdReply, ProblemReply
from jobsvc.config import NAME, Scope, settings

ABOUT = """A job queue: jobs are stored in Postgres before they are accepted, and run on RQ.

Times are RFC 3339, UTC. Durations are seconds. Types are strict: `"1"` is not a number. Unknown fields, unknown query
parameters, and strings with U+0000 or lone surrogates are rejected. Errors are problem details (RFC 9457).
"""

HEADERS = {
    "ETag": "The version of the job, for If-None-Match and If-Match.",
    "Idempotency-Key": "A request repeated with this key within 24 hours creates nothing and gets the same response.",
    "Idempotency-Replayed": "`true` if this is the response to an earlier request.",
    "If-Match": "ETags of the job, or `*`. The response is 412 unless one of them is current.",
    "If-None-Match": "An ETag. The response is 304 while the job is unchanged.",
    "Last-Event-ID": "The id of the last event received; only newer ones are sent.",
    "Link": 'The next page, with `rel="next"`.',
    "Location": "The path of the resource.",
    "Prefer": "`wait=N`: respond when the job has ended, after N seconds (at most 60) at the latest.",
    "Preference-Applied": "`wait=N` if the preference was applied.",
    "Retry-After": "Seconds until the next request is useful.",
    "WWW-Authenticate": "The ways to send a key.",
}
_PATTERNS = {
    "Idempotency-Key": r"^[!#-+\--:<-\[\]-~]{1,255}$",
    "If-Match": r'^(\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)$',
}
_PATH = {"job_id": {"type": "string", "format": "uuid"}, "name": {"type": "string", "pattern": NAME}}
_EVERYWHERE = {401, 403, 422, 429, 503}
_OF_A_BODY = {400, 413, 415}


GROUPS = {
    "Jobs": "Create, list, follow, cancel and retry jobs.",
    "Workflows": "Create many jobs in one request, which may depend on each other.",
    "Schedules": "Create jobs at the times of a cron expression.",
    "Queues and workers": "List queues and workers, pause and resume queues.",
    "Operations": "Check health and readiness, read metrics and counts over time.",
}
"""Tags of the operations, in display order."""

_GROUP_OF = {
    "schedules": "Schedules",
    "queues": "Queues and workers",
    "stats": "Operations",
    "system": "Operations",
    "jobs.create_jobs": "Workflows",
}
"""Tag of each blueprint, or of a view; all others have the tag Jobs."""

_METHODS = ("POST", "PUT", "PATCH", "GET", "DELETE")


def _group(rule: Rule) -> str:
    return _GROUP_OF.get(rule.endpoint) or _GROUP_OF.get(rule.endpoint.partition(".")[0], "Jobs")


def _place(rule: Rule) -> tuple[int, bool, str]:
    """Return a rule's sort key: by group, /jobs before all others."""
    return list(GROUPS).index(_group(rule)), rule.rule != "/jobs", rule.rule


def served(app: Flask) -> Iterator[tuple[Rule, str, Callable[..., Any]]]:
    """Yield each rule, method and view of the API; not the dashboard, this document and its page."""
    for rule in sorted(app.url_map.iter_rules(), key=_place):
        if not is_dashboard(rule.rule) and not rule.rule.startswith(("/docs", "/openapi.json", "/ui/")):
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}, key=_METHODS.index):
                yield rule, method, app.view_functions[rule.endpoint]


def path(rule: Rule) -> str:
    """Return a rule's path in OpenAPI syntax: {name} for <name>."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)


def document(app: Flask) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of this app, as JSON."""
    described = [(*route, found) for route in served(app) if (found := operation_of(route[-1]))]
    refs, components = _schemas(operation for *_, operation in described)
    name_alternatives(components)
    names = public_names(components)
    components = {
        names[name]: {**rename(schema, names), "title": title_of(names[name])} for name, schema in components.items()
    }
    refs = rename(refs, names)
    errors = {status for _, method, _, operation in described for status in _errors(operation, method)}
    groups = [{"name": name, "description": text} for name, text in GROUPS.items()]
    spec = APISpec("jobsvc", __version__, "3.1.0", info={"description": ABOUT}, tags=groups)
    spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    spec.components.security_scheme("header", {"type": "apiKey", "in": "header", "name": "X-API-Key"})
    queries = {refs[operation.query]["$ref"].rpartition("/")[2] for *_, operation in described if operation.query}
    for name in sorted(components.keys() - queries):
        spec.components.schema(name, components[name])
    for status in sorted(errors):
        spec.components.response(f"Error{status}", _problem(status, refs))
    of_a_job = [_name(rule) for rule, *_ in described if "job_id" in rule.arguments]
    for rule, method, view, operation in described:
        is_open = operation.scope is None or settings().is_open
        parameters = [*_path_parameters(rule), *_query(operation, refs, components), *_asked(operation)]
        shown = {
            "operationId": _name(rule),
            "tags": [_group(rule)],
            **_text(view, operation.scope),
            **({"parameters": parameters} if parameters else {}),
            **_body(operation, refs, components),
            "responses": _responses(operation, method, refs, of_a_job),
            "security": [] if is_open else [{"bearer": []}, {"header": []}],
        }
        spec.path(path(rule), operations={method.lower(): shown})
    return spec.to_dict()


def _schemas(operations: Iterable[Operation]) -> tuple[dict[Any, dict[str, Any]], dict[str, Any]]:
    """Return pydantic's JSON Schema of each request and response type, and the definitions they refer to."""
    taken, given = set(), {ProblemReply}
    for one in operations:
        taken |= {kind for kind in (one.takes, one.query) if kind}
        given |= {reply.body for reply in one.replies.values() if reply.body and not isinstance(reply.body, str)}
    wanted: list[Any] = [(kind, "validation", TypeAdapter(kind)) for kind in sorted(taken, key=repr)]
    wanted += [(kind, "serialization", TypeAdapter(kind)) for kind in sorted(given, key=repr)]
    refs, definitions = TypeAdapter.json_schemas(
        wanted, ref_template="#/components/schemas/{model}", schema_generator=_NoFieldTitles
    )
    return {kind: schema for (kind, _), schema in refs.items()}, definitions.get("$defs", {})


class _NoFieldTitles(GenerateJsonSchema):
    """Generates no titles such as "Runat" from the names of fields."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False for every field."""
        return False


def _name(rule: Rule) -> str:
    return str(rule.endpoint).rpartition(".")[2]


def _text(view: Callable[..., Any], scope: Scope | None) -> dict[str, str]:
    summary, _, more = (view.__doc__ or "").strip().partition("\n")
    texts = [
        inspect.cleandoc(more),
        f"Requires a key with the scope `{scope}`, if the service has keys." if scope else "Requires no key.",
    ]
    return {"summary": summary, "description": "\n\n".join(filter(None, texts))}


def _path_parameters(rule: Rule) -> Iterator[dict[str, Any]]:
    for name in sorted(rule.arguments):
        yield {"name": name, "in": "path", "required": True, "schema": _PATH.get(name, {"type": "string"})}


def _body(operation: Operation, refs: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    """Return the requestBody; required only if a field is, since a missing body is read as `{}`."""
    if operation.takes is None:
        return {}
    schema = refs[operation.takes]
    required = components[schema["$ref"].rpartition("/")[2]].get("required")
    examples = {
        f"example{number}": {"summary": title, "value": value}
        for number, (title, value) in enumerate(operation.examples.items(), start=1)
    }
    content = {"application/json": {"schema": schema, "examples": examples}}
    return {"requestBody": {"content": content, "required": bool(required)}}


def _query(operation: Operation, refs: dict[Any, Any], components: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if operation.query:
        model = refs[operation.query]
        model = components[model["$ref"].rpartition("/")[2]]
        for name, schema in model["properties"].items():
            sent = {"schema": _sendable(schema)}
            is_json = sent["schema"].get("type") == "object"
            text = sent["schema"].pop("description", None)
            yield {
                "name": name,
                "in": "query",
                **({"description": text} if text else {}),
                **({"content": {"application/json": sent}} if is_json else sent),
            }


def _sendable(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a query parameter, which can be left out but is never null."""
    rest = {key: value for key, value in schema.items() if key not in ("anyOf", "title") and value is not None}
    [kind] = [one for one in schema.get("anyOf", []) if one != {"type": "null"}] or [{}]
    return {**rest, **kind}


def _asked(operation: Operation) -> Iterator[dict[str, Any]]:
    for name in operation.asks:
        schema = {"type": "string", "pattern": _PATTERNS[name]} if name in _PATTERNS else {"type": "string"}
        yield {"name": name, "in": "header", "description": HEADERS[name], "schema": schema}


def _errors(operation: Operation, method: str) -> set[int]:
    if operation.scope is None:
        return {422, *operation.errors}
    return {*_EVERYWHERE, *operation.errors, *(_OF_A_BODY if method != "GET" else ())}


def _responses(operation: Operation, method: str, refs: dict[Any, Any], of_a_job: list[str]) -> dict[str, Any]:
    found: dict[int, Any] = {
        status: {"$ref": f"#/components/responses/Error{status}"} for status in _errors(operation, method)
    }
    found |= {status: _reply(reply, refs, of_a_job) for status, reply in operation.replies.items()}
    return {str(status): found[status] for status in sorted(found)}


def _reply(reply: Reply, refs: dict[Any, Any], of_a_job: list[str]) -> dict[str, Any]:
    shown: dict[str, Any] = {"description": reply.text, "headers": _headers(reply.headers)}
    if isinstance(reply.body, str):
        # OpenAPI 3.1 can't describe a stream of events.
        shown["content"] = {reply.body: {} if reply.body == "text/event-stream" else {"schema": {"type": "string"}}}
    elif reply.body:
        shown["content"] = {"application/json": {"schema": refs[reply.body]}}
    if reply.body is JobIdReply:
        with_id = {"parameters": {"job_id": "$response.body#/jobId"}}
        shown["links"] = {name: {"operationId": name, **with_id} for name in of_a_job}
    return shown


def _problem(status: int, refs: dict[Any, Any]) -> dict[str, Any]:
    headers = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}.get(status, ())
    content = {"application/problem+json": {"schema": refs[ProblemReply], "example": example(status)}}
    return {"description": HTTPStatus(status).phrase, "headers": _headers(headers), "content": content}


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"description": HEADERS[name], "schema": {"type": "string"}} for name in names}
