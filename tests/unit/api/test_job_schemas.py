"""Names of the components that a job's alternatives become."""

from typing import Any

from jobsvc.api.job_schemas import name_alternatives, public_names, rename


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


def test_our_models_lose_their_suffix_and_a_handlers_model_of_that_name_gets_a_number() -> None:
    names = public_names({"JobShown": {}, "Job": {}, "QueueReply": {}, "work__ErrorShown": {}, "TestJob": {}})
    assert names == {
        "JobShown": "Job",
        "Job": "Job2",
        "QueueReply": "QueueReply",
        "work__ErrorShown": "work__ErrorShown",
        "TestJob": "TestJob",
    }
    assert public_names({"jobsvc__jobs__serialize__JobShown": {}, "work__JobShown": {}}) == {
        "jobsvc__jobs__serialize__JobShown": "Job",
        "work__JobShown": "work__JobShown",
    }


def test_references_of_discriminators_are_renamed_too() -> None:
    schema = {
        "discriminator": {"mapping": {"a": "#/components/schemas/A"}},
        "oneOf": [{"$ref": "#/components/schemas/A"}],
    }
    assert rename(schema, {"A": "B"}) == {
        "discriminator": {"mapping": {"a": "#/components/schemas/B"}},
        "oneOf": [{"$ref": "#/components/schemas/B"}],
    }
