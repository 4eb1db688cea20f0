"""Names of the components that a job's alternatives become."""

from typing import Any

from jobsvc.api.job_schemas import name_alternatives


def job(*types: str) -> dict[str, Any]:
    def one(type_: str) -> dict[str, Any]:
        payload = {"type": "object", "title": "Payload", "properties": {type_: {}}}
        return {
            "title": type_,
            "description": "",
            "properties": {"type": {"const": type_}, "payload": payload},
            "required": [],
        }

    return {"title": "JobRequest", "properties": {"type": {}, "tags": {}}, "anyOf": [one(type_) for type_ in types]}


def test_similar_type_names_have_separate_components() -> None:
    components = {"JobRequest": job("A_B", "a.b", "\u00fc"), "ABPayload2": {"title": "taken"}}
    name_alternatives(components)
    names = [one["$ref"].rpartition("/")[2] for one in components["JobRequest"]["anyOf"]]
    assert names == ["AB", "AB2", "Other"]
    payloads = [components[name]["properties"]["payload"]["$ref"].rpartition("/")[2] for name in names]
    assert payloads == ["ABPayload", "ABPayload3", "OtherPayload"]
    for name, type_ in zip(names, ("A_B", "a.b", "\u00fc"), strict=True):
        assert components[name]["title"] == name
        assert components[name]["properties"]["type"] == {"const": type_}
        assert "tags" in components[name]["properties"]


def test_jobs_and_scheduled_jobs_share_payloads() -> None:
    components = {"JobRequest": job("A"), "ScheduledJob": job("A")}
    name_alternatives(components)
    assert sorted(components) == ["A", "APayload", "JobRequest", "ScheduledA", "ScheduledJob"]
