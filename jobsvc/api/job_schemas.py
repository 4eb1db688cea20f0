"""Job schemas for client generators: named components instead of conditions within one schema."""

import re
from typing import Any

JOBS = {"JobRequest": "", "ScheduledJob": "Scheduled"}
"""Components for a job of any type, with the prefix of its alternatives: one per type, without the common fields."""

NAMES = {
    "BatchRequest": "NewJobs",
    "JobRequest": "NewJob",
    "ProblemReply": "Problem",
    "ProblemShown": "InvalidValue",
    "ScheduleRequest": "NewSchedule",
}
"""Names of components that differ from their model's name without its suffix."""

_REFERENCE = "#/components/schemas/"


def name_alternatives(components: dict[str, Any]) -> None:
    """Turn each alternative of a job into a component with all of its fields, and each type's payload into another.

    JobRequest becomes `anyOf` TestJob, HttpRequest, and so on; their payloads are TestJobPayload, HttpRequestPayload.
    Reason: generators name inline schemas by their titles, which are not unique.
    """
    for name, prefix in JOBS.items():
        job = components.get(name)
        if job is None:
            continue
        common = {key: value for key, value in job.items() if key not in ("anyOf", "examples", "title", "description")}
        references = []
        for one in job["anyOf"]:
            type_ = one["properties"]["type"]["const"]
            payload = one["properties"]["payload"]
            payload = _component(components, f"{_camel(type_)}Payload", payload)
            fields = {**job["properties"], **one["properties"], "payload": payload}
            alternative = {**common, "description": one["description"], "properties": fields}
            alternative["required"] = one["required"]
            references.append(_component(components, f"{prefix}{_camel(type_)}", alternative))
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


def public_names(components: dict[str, Any]) -> dict[str, str]:
    """Return the names of components for users: without the suffixes of our models, each name once."""
    names = {}
    for name in components:
        public = NAMES.get(name) or re.sub("(?<=[a-z])(Shown|Reply)$", "", name)
        names[name] = public if public == name or public not in components else name
    return names


def rename(value: Any, names: dict[str, str]) -> Any:
    """Return a part of the document with references to renamed components."""
    if isinstance(value, list):
        return [rename(one, names) for one in value]
    if not isinstance(value, dict):
        return value
    reference = value.get("$ref")
    if isinstance(reference, str) and reference.startswith(_REFERENCE):
        name = reference.removeprefix(_REFERENCE)
        return {**value, "$ref": f"{_REFERENCE}{names.get(name, name)}"}
    return {key: rename(one, names) for key, one in value.items()}


def title_of(name: str) -> str:
    """Return a component's name in words: JobIds becomes "Job ids"."""
    return re.sub("(?<=[a-z0-9])[A-Z]", lambda found: f" {found[0].lower()}", name)


def _camel(type_: str) -> str:
    """Return a type's name in CamelCase: HTTP_REQUEST becomes HttpRequest."""
    return "".join(word.capitalize() for word in re.findall("[A-Za-z0-9]+", type_)) or "Other"
