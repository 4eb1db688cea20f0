"""Handlers whose payloads have unknown names in odd places."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.dataclasses import dataclass as checked

from jobsvc import handler


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = 1
    colour: str = "red"


class Nested(BaseModel):
    model_config = ConfigDict(extra="forbid")

    parts: list[Part] = []
    named: dict[str, Part] = {}
    maybe: Part | None = None
    pair: tuple[int, Part] | None = None


@handler("NESTED")
def nested(payload: Nested) -> Any:
    return None


@checked(config=ConfigDict(extra="forbid"))
class Width:
    width: int = 1


@handler("DATACLASS")
def of_a_dataclass(payload: Width) -> Any:
    return None


@dataclass
class Plain:
    width: int = 1


@handler("PLAIN_DATACLASS")
def of_a_plain_dataclass(payload: Plain) -> Any:
    return None
