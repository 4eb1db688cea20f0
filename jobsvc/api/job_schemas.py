"""Job schemas for client generators: named components instead of conditions within one schema."""

import re
from itertools import count
from typing import Any

from jobsvc.api import (
    batch_requests,
    explanation,
    job_types_reply,
    patch_job,
    requests,
    responses,
    schedule_requests,
    stats_reply,
)
from jobsvc.jobs import serialize

JOBS = {"BatchJob": "Batch", "JobRequest": "", "ScheduledJob": "Scheduled"}
"""Components for a job of any type, with the prefix of its alternatives: one per type, without the common fields."""

NAMES = {
    "BatchRequest": "NewJobs",
    "JobRequest": "NewJob",
    "ProblemReply": "Problem",
    "ProblemShown": "InvalidValue",
    "ScheduleRequest": "NewSchedule",
}
"""Names of components that differ from their model's name without its suffix."""

_OWN = {
    kind.__name__
    for module in (
        batch_requests,
        explanation,
        job_types_reply,
        patch_job,
        requests,
        responses,
        schedule_requests,
        serialize,
        stats_reply,
    )
    for kind in vars(module).values()
    if isinstance(kind, type) and kind.__module__ == module.__name__
}
"""Names of our own models. Where a model of a handler has the same name, pydantic writes each with its module."""

_REFERENCE = "#/components/schemas/"


def name_alternatives(components: dict[str, Any]) -> None:
    """Turn each alternative of a job into a component with all of its fields, and each type's payload into another.

    JobRequest becomes `anyOf` TestJob, HttpRequest, and so on; their payloads are TestJobPayload, HttpRequestPayload.
    Reason: generators name inline schemas by their titles, which are not unique.
    """
    for name, job in list(components.items()):
        prefix = JOBS.get(_own_model(name))
        if prefix is None:
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
    """Return the names of components for users, each once.

    Our models lose their suffixes. A handler's model keeps its name, with a number if one of ours has it.
    """
    own = {name: model for name in components if (model := _own_model(name))}
    names = {name: NAMES.get(model) or re.sub("(?<=[a-z])(Shown|Reply)$", "", model) for name, model in own.items()}
    taken = set(names.values())
    for name in sorted(components.keys() - own.keys()):
        names[name] = name if name not in taken else next(free for n in count(2) if (free := f"{name}{n}") not in taken)
        taken.add(names[name])
    return names


def _own_model(name: str) -> str:
    """Return the name of our model that this component describes, or "" for a handler's model."""
    model = name.rpartition("__")[2] if name.startswith("jobsvc__") else name
    return model if model in _OWN else ""


def rename(value: Any, names: dict[str, str]) -> Any:
    """Return a part of the document with references to renamed components, also those of discriminators."""
    match value:
        case list():
            return [rename(one, names) for one in value]
        case dict():
            return {key: rename(one, names) for key, one in value.items()}
        case str() if value.startswith(_REFERENCE):
            name = value.removeprefix(_REFERENCE)
            return f"{_REFERENCE}{names.get(name, name)}"
        case _:
            return value


def title_of(name: str) -> str:
    """Return a component's name in words: JobIds becomes "Job ids"."""
    return re.sub("(?<=[a-z0-9])[A-Z]", lambda found: f" {found[0].lower()}", name)


def _camel(type_: str) -> str:
    """Return a type's name in CamelCase: HTTP_REQUEST becomes HttpRequest."""
    return "".join(word.capitalize() for word in re.findall("[A-Za-z0-9]+", type_)) or "Other"
