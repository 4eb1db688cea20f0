"""Job schemas for client generators: named components instead of conditions within one schema."""

import re
from typing import Any

JOBS = ("JobRequest", "ScheduledJob")
"""Components for a job of any type: one alternative per type, without the common fields."""

_REFERENCE = "#/components/schemas/"


def name_alternatives(components: dict[str, Any]) -> None:
    """Turn each alternative of a job into a component with all of its fields, and each type's payload into another.

    JobRequest becomes `anyOf` JobRequestTestJob, JobRequestHttpRequest, and so on; their payloads are TestJobPayload,
    HttpRequestPayload. Reason: generators name inline schemas by their titles, which are not unique.
    """
    for name in JOBS:
        job = components.get(name)
        if job is None:
            continue
        common = {key: value for key, value in job.items() if key not in ("anyOf", "examples", "title", "description")}
        references = []
        for one in job["anyOf"]:
            type_ = one["properties"]["type"]["const"]
            payload = _component(components, f"{_camel(type_)}Payload", one["properties"]["payload"])
            fields = {**job["properties"], **one["properties"], "payload": payload}
            alternative = {**common, "description": one["description"], "properties": fields}
            alternative["required"] = one["required"]
            references.append(_component(components, f"{name}{_camel(type_)}", alternative))
        kept = {key: job[key] for key in ("title", "description", "examples") if key in job}
        components[name] = {**kept, "anyOf": references}


def _component(components: dict[str, Any], name: str, schema: dict[str, Any]) -> dict[str, str]:
    """Return a reference to a component with this schema; adds it as Name, Name2 and so on if there is none."""
    if schema.keys() == {"$ref"}:
        return {"$ref": schema["$ref"]}
    free, number = name, 1
    titled = {**schema, "title": free}
    while components.setdefault(free, titled) != titled:
        number += 1
        free = f"{name}{number}"
        titled = {**schema, "title": free}
    return {"$ref": f"{_REFERENCE}{free}"}


def _camel(type_: str) -> str:
    """Return a type's name in CamelCase: HTTP_REQUEST becomes HttpRequest."""
    return "".join(word.capitalize() for word in re.findall("[A-Za-z0-9]+", type_)) or "Other"
